//! The memory of one forward pass, sized at load and never grown.

/// Bytes of a cache line. Rows begin with one, since a register that is half in one line and half in the next costs two.
const LINE: usize = 64;

/// Rows of activations of one width.
pub(super) struct Buffer {
    data: Vec<f32>,
    /// Where the first row begins.
    start: usize,
    width: usize,
}

impl Buffer {
    /// Room for `rows` rows of `width`.
    pub(super) fn new(rows: usize, width: usize) -> Self {
        let data = vec![0.0; rows * width + LINE / size_of::<f32>()];
        let start = data.as_ptr().align_offset(LINE);
        Self { data, start, width }
    }

    /// The first `rows` rows.
    pub(super) fn rows(&mut self, rows: usize) -> &mut [f32] {
        &mut self.data[self.start..][..rows * self.width]
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.data.as_slice())
    }

    /// Width of a row.
    pub(super) fn width(&self) -> usize {
        self.width
    }
}

/// Widths of the buffers of a decoder.
pub(super) struct Widths {
    /// The residual stream.
    pub(super) hidden: usize,
    /// The fused queries, keys and values.
    pub(super) qkv: usize,
    /// What attention returns: query heads times head width.
    pub(super) attended: usize,
    /// What the first layer of the feed-forward part returns.
    pub(super) inner: usize,
    /// Half the rotated width of a head, where positions rotate.
    pub(super) half: usize,
    /// A row of logits.
    pub(super) vocabulary: usize,
}

/// The buffers of one forward pass.
pub(super) struct Workspace {
    /// The residual stream.
    pub(super) x: Buffer,
    pub(super) normed: Buffer,
    pub(super) qkv: Buffer,
    pub(super) attended: Buffer,
    pub(super) inner: Buffer,
    pub(super) cos: Buffer,
    pub(super) sin: Buffer,
    pub(super) positions: Vec<u32>,
    /// Rows of the residual stream whose logits are wanted.
    pub(super) picked: Buffer,
    pub(super) picked_normed: Buffer,
    pub(super) logits: Buffer,
}

impl Workspace {
    /// Room for `rows` rows of which at most `outputs` want logits.
    pub(super) fn new(rows: usize, outputs: usize, widths: &Widths) -> Self {
        Self {
            x: Buffer::new(rows, widths.hidden),
            normed: Buffer::new(rows, widths.hidden),
            qkv: Buffer::new(rows, widths.qkv),
            attended: Buffer::new(rows, widths.attended),
            inner: Buffer::new(rows, widths.inner),
            cos: Buffer::new(rows, widths.half),
            sin: Buffer::new(rows, widths.half),
            positions: Vec::with_capacity(rows),
            picked: Buffer::new(outputs, widths.hidden),
            picked_normed: Buffer::new(outputs, widths.hidden),
            logits: Buffer::new(outputs, widths.vocabulary),
        }
    }
    /// Bytes of all buffers.
    pub(super) fn bytes(&self) -> usize {
        let Self { x, normed, qkv, attended, inner, cos, sin, positions, picked, picked_normed, logits } =
            self;
        let buffers = [x, normed, qkv, attended, inner, cos, sin, picked, picked_normed, logits];
        buffers.iter().map(|buffer| buffer.bytes()).sum::<usize>() + positions.capacity() * size_of::<u32>()
    }
}
