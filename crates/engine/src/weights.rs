//! Weights of which memory holds only some, as a model's status tells of them: what was counted stays when the model is loaded
//! again.

use std::sync::{Mutex, PoisonError};

use protocol::status::StreamedStatus;
use tensor::packed::streamed::StreamedWeights;

use crate::sum::add_streamed;

/// The weights that are in use, and what those before them have counted.
#[derive(Default)]
pub(crate) struct Weights(Mutex<Inside>);

#[derive(Default)]
struct Inside {
    now: Option<StreamedWeights>,
    /// Counters alone: those weights are held by nobody who could be asked for more.
    past: StreamedStatus,
}

impl Weights {
    /// Goes on with the weights of a model that was loaded, or loaded again.
    pub(crate) fn renew(&self, next: Option<StreamedWeights>) {
        let mut inside = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = inside.now.as_ref().map(told).unwrap_or_default();
        let counted = StreamedStatus { bytes: 0, limit_bytes: 0, held_bytes: 0, ..counted };
        add_streamed(&mut inside.past, counted);
        inside.now = next;
    }

    /// What there is now, with all that was counted.
    pub(crate) fn status(&self) -> StreamedStatus {
        let inside = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut status = inside.now.as_ref().map(told).unwrap_or_default();
        add_streamed(&mut status, inside.past);
        status
    }
}

fn told(weights: &StreamedWeights) -> StreamedStatus {
    let held = weights.statistics();
    StreamedStatus {
        bytes: held.bytes as u64,
        limit_bytes: held.budget as u64,
        held_bytes: held.held as u64,
        read_bytes: held.read,
        waited_seconds: held.waited.as_secs_f64(),
        faults: held.faults,
    }
}
