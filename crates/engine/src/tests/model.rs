//! A model whose logits are a hash of what is really written in the KV pages, so that any mix-up of pages, positions
//! or chunks shows in its output.

use std::sync::{Arc, Mutex};

use models::{Batch, CausalLm, ModelShape, Outputs};
use tensor::{Kernels, KvArena, KvDtype, KvLayout, PAGE_TOKENS, Pool};

use crate::sampler::mix;

pub(crate) const VOCABULARY: usize = 512;
pub(crate) const HIDDEN: usize = 3;
pub(crate) const END: u32 = 511;
/// Reading this token makes the model panic. Neither this nor the next one is sampled.
pub(crate) const POISON: u32 = 510;
/// Reading this token makes the logits NaN.
pub(crate) const NAN: u32 = 509;

#[derive(Default)]
pub(crate) struct HashModel {
    /// Overrides the hash: the token that follows a context of that length.
    pub(crate) script: Vec<u32>,
    /// What was computed: per span the first token of its sequence, the context and the rows.
    pub(crate) seen: Arc<Mutex<Vec<(u32, usize, usize)>>>,
    pub(crate) max_positions: usize,
    pub(crate) logits: Vec<f32>,
    pub(crate) states: Vec<f32>,
    /// Threads for whoever reads its logits.
    pub(crate) pool: Option<Arc<Pool>>,
}

impl HashModel {
    pub(crate) fn new() -> Self {
        Self { max_positions: 4096, ..Self::default() }
    }

    /// With threads that choose tokens together.
    pub(crate) fn with_threads(threads: usize) -> Self {
        Self { pool: Some(Arc::new(Pool::new(threads))), ..Self::new() }
    }
}

fn cell(pages: &[u32], position: usize) -> std::ops::Range<usize> {
    let start = (pages[position / PAGE_TOKENS] as usize * PAGE_TOKENS + position % PAGE_TOKENS) * 8;
    start..start + 8
}

impl CausalLm for HashModel {
    fn shape(&self) -> ModelShape {
        ModelShape {
            vocabulary: VOCABULARY,
            hidden: HIDDEN,
            max_positions: self.max_positions,
            parameters: 1,
            weight_bytes: 1,
            workspace_bytes: 1,
            kv: KvLayout { layers: 1, heads: 1, dim: 1, dtype: KvDtype::F32 },
        }
    }

    fn twin(&self, _: Arc<dyn Kernels>) -> Box<dyn CausalLm> {
        let (script, seen) = (self.script.clone(), Arc::clone(&self.seen));
        Box::new(Self { script, seen, max_positions: self.max_positions, ..Self::default() })
    }

    fn forward(&mut self, batch: &Batch, kv: &mut KvArena) -> Outputs<'_> {
        self.logits.clear();
        self.states.clear();
        assert!(!batch.tokens.contains(&POISON) || batch.tokens == [0], "poison was read");
        for span in &batch.ragged.spans {
            let pages = &batch.ragged.pages[span.pages.clone()];
            assert!(pages.len() * PAGE_TOKENS >= span.context + span.rows, "the page table is too short");
            for row in 0..span.rows {
                let position = span.context + row;
                let token = batch.tokens[span.first_row + row];
                let bytes = &mut kv.bytes_mut()[cell(pages, position)];
                bytes[..4].copy_from_slice(&token.to_le_bytes());
                bytes[4..].copy_from_slice(&(position as u32).to_le_bytes());
                let context = || -> Vec<u64> {
                    let cells = (0..=position).map(|p| kv.bytes()[cell(pages, p)].try_into().unwrap());
                    cells.map(u64::from_le_bytes).collect()
                };
                if batch.outputs.contains(&((span.first_row + row) as u32)) {
                    push_logits(&context(), &self.script, &mut self.logits);
                }
                if batch.states.iter().any(|rows| rows.contains(&(span.first_row + row))) {
                    self.states.extend(state(&context()));
                }
            }
            let first = u32::from_le_bytes(kv.bytes()[cell(pages, 0)][..4].try_into().unwrap());
            self.seen.lock().unwrap().push((first, span.context, span.rows));
        }
        Outputs { logits: &self.logits, states: &self.states, pool: self.pool.as_deref() }
    }
}

/// The hidden state of the last token of a context.
pub(crate) fn state(context: &[u64]) -> [f32; HIDDEN] {
    let hash = context.iter().fold(0, |hash, &cell| mix(hash ^ cell));
    let is_nan = context.iter().any(|&cell| cell as u32 == NAN);
    std::array::from_fn(|at| {
        let unit = (mix(hash ^ ((at as u64) << 40)) >> 40) as f32 / (1 << 24) as f32 - 0.5;
        if is_nan { f32::NAN } else { unit }
    })
}

fn push_logits(context: &[u64], script: &[u32], logits: &mut Vec<f32>) {
    if context.iter().any(|&cell| cell as u32 == NAN) {
        logits.extend([f32::NAN; VOCABULARY]);
        return;
    }
    let hash = context.iter().fold(0, |hash, &cell| mix(hash ^ cell));
    let unit = |id: u64| (mix(hash ^ (id << 32)) >> 40) as f32 / (1 << 24) as f32;
    let first = logits.len();
    logits.extend((0..VOCABULARY as u64).map(|id| unit(id) * 8.0 - 4.0));
    for harmful in [POISON, NAN] {
        logits[first + harmful as usize] = -30.0;
    }
    if let Some(&next) = script.get(context.len()) {
        logits[first + next as usize] = 30.0;
    }
}
