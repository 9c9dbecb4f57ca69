//! The seam of models that are given a batch and answer it: no tokens, no sequences, no steps.

use std::sync::Arc;

/// A model of any kind: a batch in, a batch out.
///
/// For the implementer: `run` is called on one thread at a time and may take as long as it likes; it holds up nobody but
/// those who wait for this model. A batch never has more inputs, or costs more together, than
/// [`super::DynamicSettings`] says, except that an input that costs more alone goes alone.
pub trait BatchModel: Send + 'static {
    /// What it is given.
    type Input: Send + Sync + 'static;
    /// What it makes of that.
    type Output: Send + 'static;
    /// Why it made nothing.
    type Error: std::error::Error + Send + Sync + 'static;

    /// How much an input costs, in whatever counts for the model: rows, tokens, pixels. Batches, queues and the shares of
    /// tenants are measured by it.
    fn cost(input: &Self::Input) -> u64;

    /// One outcome for each input, in their order.
    ///
    /// # Errors
    /// An error of all, or a panic: the batch is then run again in halves, down to the inputs that fail alone.
    #[expect(
        clippy::type_complexity,
        reason = "an alias would hide from implementers what they are to return"
    )]
    fn run(
        &mut self,
        batch: &[Arc<Self::Input>],
    ) -> Result<Vec<Result<Self::Output, Self::Error>>, Self::Error>;
}
