//! Runs of neighbouring panels of a layer. Layers are read from files and checked by strips, and what is streamed is in
//! memory for as long as one of its strips is in use, and no longer.

use std::ops::Range;
use std::sync::Arc;

use memory::rung::Blob;

use super::{Layout, Linear, Panel, Weights, unpack};
use crate::Dtype;

/// Bytes of a strip, as far as panels allow: enough for a disk to be fast, few beside any memory.
const BYTES: usize = 4 << 20;

/// What the place of a strip in a file is a multiple of, and so its length: a page, since files are mapped by pages and
/// read past the page cache by blocks.
pub(super) const ALIGNMENT: usize = 4096;

impl Layout {
    /// Panels of a strip; the last one of a layer may have fewer. Strips of a layer are as equal as can be.
    pub(super) fn strip_panels(self) -> usize {
        let bytes = self.panel_bytes();
        // Panels are of 256 bytes times something, so 16 of them are whole pages.
        let whole = (1..=16).find(|panels| (panels * bytes).is_multiple_of(ALIGNMENT)).unwrap_or(16);
        let most = (BYTES / bytes.max(1) / whole * whole).max(whole);
        self.panels().div_ceil(self.panels().div_ceil(most).max(1)).next_multiple_of(whole).max(1)
    }

    /// Strips of a layer.
    pub(super) fn strips(self) -> usize {
        self.panels().div_ceil(self.strip_panels())
    }

    /// The panels of a strip.
    pub(super) fn strip(self, strip: usize) -> Range<usize> {
        let panels = self.strip_panels();
        strip * panels..((strip + 1) * panels).min(self.panels())
    }

    /// Where the panels of a strip stand in the bytes of the layer.
    pub(super) fn strip_bytes(self, strip: usize) -> Range<usize> {
        let (panels, bytes) = (self.strip(strip), self.panel_bytes());
        panels.start * bytes..panels.end * bytes
    }
}

/// Neighbouring panels of a layer, in memory.
pub(crate) struct Strip<'a> {
    layer: &'a Linear,
    panels: Range<usize>,
    bytes: Bytes<'a>,
}

enum Bytes<'a> {
    Here(&'a [u8]),
    Raised(Arc<Blob>),
}

impl Linear {
    /// All panels of the layer, in order: in one strip if they are in memory, and else in as many as they are read in, of
    /// which the next one is waited for when it is asked for. Nobody should hold two of these.
    ///
    /// Panics when they cannot be read.
    pub(crate) fn strips(&self) -> impl Iterator<Item = Strip<'_>> {
        let strips = match &self.weights {
            Weights::Streamed(_) => self.layout.strips(),
            _ => 1,
        };
        (0..strips).map(|strip| match &self.weights {
            Weights::Packed(arena) => self.whole(arena.bytes()),
            Weights::Stored { file, range } => self.whole(&file.as_ref()[range.clone()]),
            Weights::Streamed(streamed) => {
                let bytes = Bytes::Raised(streamed.strip(strip));
                Strip { layer: self, panels: self.layout.strip(strip), bytes }
            }
        })
    }

    fn whole<'a>(&'a self, bytes: &'a [u8]) -> Strip<'a> {
        Strip { layer: self, panels: 0..self.layout.panels(), bytes: Bytes::Here(bytes) }
    }
}

impl Strip<'_> {
    /// Numbers of its panels.
    pub(crate) fn panels(&self) -> Range<usize> {
        self.panels.clone()
    }

    /// Outputs that it has.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = usize> {
        self.panels().flat_map(|panel| self.layer.layout.runs(panel)).flat_map(|(run, _)| run)
    }

    /// The bytes of its panels.
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Here(bytes) => bytes,
            Bytes::Raised(blob) => &blob.bytes,
        }
    }

    /// The weights of a panel.
    pub(crate) fn panel(&self, panel: usize) -> Panel<'_> {
        let Layout { grouping, dtype, .. } = self.layer.layout;
        let (bytes, place) = (self.layer.layout.panel_bytes(), panel - self.panels.start);
        let bytes = &self.bytes()[place * bytes..(place + 1) * bytes];
        match (grouping, dtype) {
            (Some(_), _) => Panel::Quantised(bytemuck::cast_slice(bytes)),
            (None, Dtype::F32) => Panel::F32(bytemuck::cast_slice(bytes)),
            (None, _) => Panel::Bf16(bytemuck::cast_slice(bytes)),
        }
    }

    /// Unpacks the weights of one output.
    pub(crate) fn row_into(&self, output: usize, row: &mut [f32]) {
        let (panel, column) = self.layer.layout.place(output);
        match (self.panel(panel), self.layer.layout.grouping) {
            (Panel::F32(panel), _) => unpack(panel, column, row),
            (Panel::Bf16(panel), _) => unpack(panel, column, row),
            (Panel::Quantised(panel), Some(grouping)) => grouping.read(panel, column, row),
            (Panel::Quantised(_), None) => unreachable!("panels are quantised where there is a grouping"),
        }
    }
}
