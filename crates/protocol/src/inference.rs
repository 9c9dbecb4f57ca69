//! The seam between everything that accepts work and everything that does it.

use futures::future::BoxFuture;

use crate::{
    Adjustment, EmbedRequest, Embeddings, GenerateRequest, Generation, ModelCard, Refusal, ScoreRequest,
    Scores, Status, Unserved,
};

/// Something that turns requests into event streams: an engine in this process, a scripted double, a remote worker.
///
/// For the implementer:
/// - A request is either refused by [`Inference::generate`] (nothing was kept, nothing will be sent) or accepted, and
///   an accepted request ends in exactly one terminal event ([`crate::Event::Done`] or [`crate::Event::Failed`]).
/// - Dropping the returned [`Generation`] is the cancellation, at whatever stage the request is in. So is dropping the
///   future of [`Inference::embed`] or [`Inference::score`] before it is ready.
/// - [`Inference::status`] and [`Inference::models`] return at once, also while the engine computes or hangs.
pub trait Inference: Send + Sync {
    /// The models that can be asked for; the default is the first that is made for what is asked, or else the first that can.
    fn models(&self) -> Vec<ModelCard>;

    /// Validates and admits a request. The future resolves as soon as the request is queued, not when it runs.
    ///
    /// # Errors
    /// A [`Refusal`] says why the request was not accepted and whether trying again can help.
    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<Generation, Refusal>>;

    /// Makes vectors of texts. The future resolves when all of them are there.
    ///
    /// # Errors
    /// The request was refused, or failed after it had been accepted; there is no answer in part.
    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, Unserved>>;

    /// Scores pairs of texts. The future resolves when all scores are there.
    ///
    /// # Errors
    /// As [`Inference::embed`].
    fn score(&self, request: ScoreRequest) -> BoxFuture<'_, Result<Scores, Unserved>>;

    /// A snapshot of health, load and counters, read without waiting for the engine.
    fn status(&self) -> Status;

    /// Changes how it works, for everybody and at once; resolves when the change is in effect.
    ///
    /// # Errors
    /// A [`Refusal::InvalidParameter`] where it has nothing of the kind, or cannot work so.
    fn adjust(&self, adjustment: Adjustment) -> BoxFuture<'_, Result<(), Refusal>>;

    /// Stops admitting (requests are refused as [`Refusal::NotReady`]) and resolves when every accepted request has
    /// ended. Calling it again joins the same drain.
    fn drain(&self) -> BoxFuture<'_, ()>;
}
