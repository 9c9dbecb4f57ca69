//! An encoder as an [`Inference`]: vectors and scores.

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use models::tokenizer::Sentence;
use models::{EncoderBatch, LoadedEncoder, Outcome};
use protocol::status::{MemoryPlan, ModelStatus};
use protocol::{
    Adjustment, EmbedRequest, Embedding, Embeddings, Failure, GenerateRequest, Generation, Inference,
    Measure, ModelCard, Refusal, ScoreRequest, Scores, Status, Task, Unserved,
};

use super::{BatchModel, Care, Dynamic, DynamicSettings, ItemError, Served, Terms};
use crate::engine::StopReport;
use crate::reading::{Read, Reader};
use crate::sum;
use crate::turns::{Seat, Turns};
use crate::vectors::{check_dimensions, check_pairs, cosines, shortened};
use crate::weights::Weights;
use crate::{EngineError, Revive};

/// An encoder that serves requests: vectors of texts, or scores of pairs, many requests in a batch.
///
/// Dropping it fails what is still running; use [`Inference::drain`] or [`EncoderEngine::stop`] to let that finish.
pub struct EncoderEngine {
    card: ModelCard,
    reader: Reader,
    dynamic: Dynamic<Encoding>,
    memory: MemoryPlan,
    weights: Arc<Weights>,
    /// What it computes on.
    turns: Turns,
}

/// The model with the batch that it reads.
struct Encoding {
    loaded: LoadedEncoder,
    batch: EncoderBatch,
}

impl BatchModel for Encoding {
    type Input = Sentence;
    type Output = Vec<f32>;
    type Error = Infallible;

    fn cost(input: &Sentence) -> u64 {
        input.ids.len() as u64
    }

    fn run(&mut self, batch: &[Arc<Sentence>]) -> Result<Vec<Result<Vec<f32>, Infallible>>, Infallible> {
        let Self { loaded, batch: rows } = self;
        rows.clear();
        batch.iter().for_each(|sentence| rows.push(sentence));
        let width = width(loaded.outcome());
        Ok(loaded.run(rows).chunks_exact(width).map(|output| Ok(output.to_vec())).collect())
    }
}

impl EncoderEngine {
    /// Warms the model up and serves it under `name`, taking turns with the other models of `turns`. The batches hold as
    /// many tokens as the model was loaded for. A model that does not come back from one is loaded again by `revive`.
    ///
    /// # Errors
    /// When a setting cannot work, the model fails on its first text, or the system refuses the threads.
    pub fn start(
        loaded: LoadedEncoder,
        name: String,
        settings: DynamicSettings,
        turns: &Turns,
        revive: Option<Revive<LoadedEncoder>>,
    ) -> Result<Arc<Self>, EngineError> {
        let shape = loaded.model.shape();
        let tasks = match loaded.outcome() {
            Outcome::Vector(_) => vec![Task::Embed, Task::Score],
            Outcome::Score => vec![Task::Score],
        };
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let card = ModelCard {
            reasoning: None,
            calls: None,
            id: name,
            family: loaded.family.to_owned(),
            context: count(loaded.reader.tokenizer.max_tokens()),
            vocabulary: count(shape.vocabulary),
            parameters: shape.parameters,
            dtype: loaded.precision(),
            chat: false,
            dimensions: tasks.contains(&Task::Embed).then_some(count(width(loaded.outcome()))),
            tasks,
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        };
        let reader = Reader::new(loaded.reader.clone());
        let settings = DynamicSettings { batch_cost: loaded.max_batch_tokens as u64, ..settings };
        let memory = MemoryPlan {
            weights: loaded.weight_bytes() as u64,
            workspace: shape.workspace_bytes as u64,
            ..MemoryPlan::default()
        };
        let weights = Arc::new(Weights::default());
        weights.renew(loaded.streamed.clone());
        let revive = revive.map(|revive| again(revive, loaded.identity.clone(), Arc::clone(&weights)));
        let mut model = Encoding { loaded, batch: EncoderBatch::default() };
        model.warm_up(&turns.seat())?;
        let dynamic = Dynamic::start_with(model, &settings, Care { turns: turns.clone(), revive })?;
        Ok(Arc::new(Self { card, reader, dynamic, memory, weights, turns: turns.clone() }))
    }

    /// The bytes that the engine plans with.
    pub fn memory(&self) -> MemoryPlan {
        self.memory
    }

    /// Accepts no more, gives what is accepted `grace` to end, and fails the rest.
    pub async fn stop(&self, grace: Duration) -> StopReport {
        self.dynamic.stop(grace).await
    }

    /// Refuses what this model is not, or does not do.
    fn check(&self, model: Option<&String>, task: Task) -> Result<(), Refusal> {
        let refusal = match model {
            Some(model) if *model != self.card.id => {
                Refusal::UnknownModel { model: model.clone(), near: vec![self.card.id.clone()] }
            }
            _ if !self.card.can(task) => {
                Refusal::Unable { model: self.card.id.clone(), task, able: Vec::new() }
            }
            _ => return Ok(()),
        };
        self.dynamic.meters().refused(&refusal);
        Err(refusal)
    }

    /// Reads the texts of a request once it is admitted, and has them served.
    async fn serve(&self, terms: Terms, read: Read) -> Result<(Vec<Sentence>, Served<Vec<f32>>), Unserved> {
        let admitted = self.dynamic.admit(terms)?;
        let sentences = self.reader.read(read, Some(self.dynamic.handle())).await;
        let sentences = sentences.inspect_err(|refusal| self.dynamic.meters().refused(refusal))?;
        let served = self.dynamic.serve(admitted, sentences.clone()).await?;
        Ok((sentences, served))
    }

    async fn vectors(&self, request: EmbedRequest) -> Result<Embeddings, Unserved> {
        self.check(request.model.as_ref(), Task::Embed)?;
        let width = self.card.dimensions.unwrap_or_default();
        let dimensions = request.dimensions;
        self.noted(check_dimensions(dimensions, width))?;
        let terms = Terms { tenant: request.tenant, priority: request.priority, deadline: request.deadline };
        let read = Read::texts(request.inputs, request.purpose, request.overlong);
        let (sentences, served) = self.serve(terms, read).await?;
        let timing = served.timing;
        let outputs = self.whole(served)?.into_iter().zip(&sentences);
        let vectors = outputs.map(|(values, sentence)| Embedding {
            values: shortened(values, dimensions),
            tokens: count(sentence),
            is_truncated: sentence.is_truncated(),
        });
        Ok(Embeddings { model: self.card.id.clone(), vectors: vectors.collect(), timing })
    }

    async fn scores(&self, request: ScoreRequest) -> Result<Scores, Unserved> {
        self.check(request.model.as_ref(), Task::Score)?;
        let (queries, documents) = (request.queries.len(), request.documents.len());
        self.noted(check_pairs(queries, documents))?;
        let terms = Terms { tenant: request.tenant, priority: request.priority, deadline: request.deadline };
        let measure = if self.card.can(Task::Embed) { Measure::Cosine } else { Measure::Classifier };
        let read = match measure {
            Measure::Cosine => Read::apart(request.queries, request.documents, request.overlong),
            Measure::Classifier => Read::pairs(request.queries, request.documents, request.overlong),
        };
        let (sentences, served) = self.serve(terms, read).await?;
        let timing = served.timing;
        let outputs = self.whole(served)?;
        let values = match measure {
            Measure::Classifier => outputs.concat(),
            Measure::Cosine => cosines(&outputs, queries),
        };
        let tokens = sentences.iter().map(count).sum();
        Ok(Scores { model: self.card.id.clone(), measure, values, tokens, timing })
    }

    /// All outputs, or the first failure.
    fn whole(&self, served: Served<Vec<f32>>) -> Result<Vec<Vec<f32>>, Failure> {
        let outputs: Result<_, _> = served.outputs.into_iter().collect();
        let failed = outputs.map_err(|error: ItemError| Failure::Engine { message: error.message });
        failed.inspect_err(|failure| self.dynamic.meters().failed(failure))
    }

    /// Counts a refusal.
    fn noted(&self, checked: Result<(), Refusal>) -> Result<(), Refusal> {
        checked.inspect_err(|refusal| self.dynamic.meters().refused(refusal))
    }
}

impl Encoding {
    /// Runs the shortest text there is, so that the first request does not pay for first touches.
    fn warm_up(&mut self, seat: &Seat) -> Result<(), EngineError> {
        let wrong = |message: String| EngineError::WarmUp { message };
        let sentence = self.loaded.reader.read("", "a").map_err(|error| wrong(error.to_string()))?;
        let run = || {
            let _turn = seat.turn();
            drop(self.run(&[Arc::new(sentence)]));
        };
        catch_unwind(AssertUnwindSafe(run)).map_err(|panic| wrong(crate::compute::message(&*panic)))
    }
}

/// How many numbers come out for a text.
fn width(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Vector(width) => width,
        Outcome::Score => 1,
    }
}

/// The model once more, if its files are those that it was loaded from first.
fn again(revive: Revive<LoadedEncoder>, identity: Option<String>, weights: Arc<Weights>) -> Revive<Encoding> {
    Revive::new(move || {
        let loaded = revive.load()?;
        if loaded.identity != identity {
            return Err("its files are not the ones that it was loaded from first".to_owned());
        }
        weights.renew(loaded.streamed.clone());
        Ok(Encoding { loaded, batch: EncoderBatch::default() })
    })
}

fn count(sentence: &Sentence) -> u32 {
    u32::try_from(sentence.ids.len()).unwrap_or(u32::MAX)
}

impl Inference for EncoderEngine {
    fn models(&self) -> Vec<ModelCard> {
        vec![self.card.clone()]
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<Generation, Refusal>> {
        let refusal = self.check(request.model.as_ref(), Task::Generate).err();
        let unable =
            || Refusal::Unable { model: self.card.id.clone(), task: Task::Generate, able: Vec::new() };
        ready(Err(refusal.unwrap_or_else(unable))).boxed()
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, Unserved>> {
        self.vectors(request).boxed()
    }

    fn score(&self, request: ScoreRequest) -> BoxFuture<'_, Result<Scores, Unserved>> {
        self.scores(request).boxed()
    }

    fn status(&self) -> Status {
        let status = self.dynamic.status();
        let model = ModelStatus {
            id: self.card.id.clone(),
            phase: status.phase,
            health: status.health.clone(),
            queued: status.load.queued,
            running: status.load.running,
            memory: self.memory,
        };
        let devices = vec![self.turns.status(&model)];
        sum::with_figures(Status { devices, models: vec![model], weights: self.weights.status(), ..status })
    }

    fn adjust(&self, adjustment: Adjustment) -> BoxFuture<'_, Result<(), Refusal>> {
        if adjustment == Adjustment::Rebalance {
            return ready(Ok(())).boxed();
        }
        let message = "an encoder has no streams, pages or steps that could be adjusted".to_owned();
        ready(Err(Refusal::InvalidParameter { param: "adjustment".to_owned(), message })).boxed()
    }

    fn drain(&self) -> BoxFuture<'_, ()> {
        self.dynamic.drain().boxed()
    }
}
