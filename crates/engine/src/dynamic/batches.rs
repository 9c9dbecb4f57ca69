//! Batches: which inputs go together, and the model that serves them.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use flow::Batch;
use flow::batcher::WhenIdle;
use flow::work::Classed;

use super::{BatchModel, DynamicSettings};
use crate::clock::Clock;
use crate::meters::Meters;
use crate::roll::Roll;

/// How the inputs of a model become batches.
pub(super) fn rules<M: BatchModel>(settings: &DynamicSettings) -> Batch<Arc<M::Input>> {
    Batch::up_to(settings.batch_items)
        .within(settings.max_delay)
        .when_idle(WhenIdle::Adapt)
        .cost(settings.batch_cost, |input: &Arc<M::Input>| M::cost(input))
        .buckets(settings.buckets.clone(), |input: &Arc<M::Input>| M::cost(input))
        .executors(1)
        .at_most(1)
        .capacity(3 * settings.batch_items)
        .bisect()
}

/// The model, and who watches it.
pub(super) struct Cell<M> {
    pub(super) model: Mutex<M>,
    pub(super) meters: Arc<Meters>,
    pub(super) roll: Arc<Roll>,
    pub(super) clock: Arc<dyn Clock>,
}

impl<M: BatchModel> Cell<M> {
    /// One batch.
    pub(super) async fn run(
        self: Arc<Self>,
        batch: Vec<Arc<M::Input>>,
    ) -> Result<Vec<Result<M::Output, Classed>>, Classed> {
        let cost: u64 = batch.iter().map(|input| M::cost(input)).fold(0, u64::saturating_add);
        let began = self.clock.now();
        self.meters.progress(1, began);
        let cell = Arc::clone(&self);
        let ran = move || cell.model.lock().unwrap_or_else(PoisonError::into_inner).run(&batch);
        let ran = tokio::task::spawn_blocking(ran).await;
        let now = self.clock.now();
        self.meters.steps.fetch_add(1, Relaxed);
        self.meters.step.observe(now.saturating_sub(began));
        self.meters.step_tokens.observe(usize::try_from(cost).unwrap_or(usize::MAX));
        self.meters.progress(self.roll.count(), now);
        let outcome = match ran {
            Ok(outcome) => outcome,
            Err(failed) => {
                self.meters.fault("the model panicked", now);
                match failed.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(cut) => return Err(Classed::transient(cut)),
                }
            }
        };
        match &outcome {
            Ok(_) => {
                self.meters.recovered();
                self.meters.prompt_tokens.fetch_add(cost, Relaxed);
            }
            Err(error) => self.meters.fault(&error.to_string(), now),
        }
        let outputs = outcome.map_err(Classed::permanent)?;
        Ok(outputs.into_iter().map(|output| output.map_err(Classed::permanent)).collect())
    }
}
