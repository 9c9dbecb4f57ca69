//! Vectors from a model that generates. Each text is a request of the running engine like any other, but for its end: it is
//! over when its prompt has been read.

use std::iter::repeat_n;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use futures::{Stream, StreamExt};
use models::{Embedder, Pooling, Scaling};
use protocol::{
    EmbedInput, EmbedRequest, Embedding, Embeddings, Event, Failure, GenerateRequest, Measure, Prompt,
    Refusal, ScoreRequest, Scores, Shown, Task, Timing, Unserved,
};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::{Engine, Preparing, refusal, token_bytes};
use crate::dynamic::Terms;
use crate::parameters::Parameters;
use crate::prompt::bytes;
use crate::reading::{Read, Reader};
use crate::request::{Ready, Seat};
use crate::vectors::{check_dimensions, check_pairs, cosines, scaled, shortened};
use crate::vision::Picture;

/// How an engine makes vectors.
pub(super) struct Vectors {
    reader: Reader,
    pooling: Pooling,
    scaling: Scaling,
}

impl Vectors {
    /// Goes by the model's files, and by `pooling` where they say nothing; for texts that fit the context.
    pub(super) fn new(embedder: Embedder, pooling: Pooling, context: usize) -> Self {
        let Embedder { reader, pooling: stated, scaling } = embedder.within(context);
        Self { reader: Reader::new(reader), pooling: stated.unwrap_or(pooling), scaling }
    }

    /// What is told of a pooled vector.
    fn told(&self, values: Vec<f32>, dimensions: Option<u32>) -> Vec<f32> {
        match (self.scaling, dimensions) {
            (Scaling::Unit, None) => scaled(values),
            (_, dimensions) => shortened(values, dimensions),
        }
    }
}

/// What a model that generates can do; what it was made for comes first.
pub(super) fn tasks(embedder: &Embedder) -> Vec<Task> {
    match embedder.pooling {
        Some(_) => vec![Task::Embed, Task::Score, Task::Generate],
        None => vec![Task::Generate, Task::Embed, Task::Score],
    }
}

/// What one client wants vectors of.
struct Wanted {
    terms: Terms,
    /// The texts, in order.
    texts: Read,
    /// By place: the conversation that stands there, where no text does.
    chats: Vec<Option<GenerateRequest>>,
}

impl Wanted {
    fn embedded(request: EmbedRequest) -> Self {
        let terms = Terms { tenant: request.tenant, priority: request.priority, deadline: request.deadline };
        let (mut texts, mut chats) = (Vec::new(), Vec::new());
        for input in request.inputs {
            match input {
                EmbedInput::Chat(shown) => chats.push(Some(conversation(*shown, &terms))),
                text => {
                    texts.push(text);
                    chats.push(None);
                }
            }
        }
        Self { terms, texts: Read::texts(texts, request.purpose, request.overlong), chats }
    }

    fn scored(request: ScoreRequest) -> Self {
        let terms = Terms { tenant: request.tenant, priority: request.priority, deadline: request.deadline };
        let chats = (0..request.queries.len() + request.documents.len()).map(|_| None).collect();
        Self { terms, texts: Read::apart(request.queries, request.documents, request.overlong), chats }
    }

    /// Bytes of all that is to be read.
    fn bytes(&self) -> u64 {
        let chats = self.chats.iter().flatten().map(|request| bytes(&request.prompt));
        self.texts.held_bytes() + chats.sum::<u64>()
    }
}

/// A conversation that is over: nobody's turn follows, unless its template is told otherwise.
fn conversation(shown: Shown, terms: &Terms) -> GenerateRequest {
    let Shown { mut chat, images, clips } = shown;
    chat.template_options.entry("add_generation_prompt").or_insert(false.into());
    GenerateRequest { images, clips, ..prompted(Prompt::Chat(chat), terms) }
}

fn prompted(prompt: Prompt, terms: &Terms) -> GenerateRequest {
    let Terms { tenant, priority, deadline } = terms.clone();
    GenerateRequest { tenant, priority, deadline, ..GenerateRequest::new("embed", prompt) }
}

/// A text that can be queued.
struct Prepared {
    parameters: Parameters,
    pictures: Vec<Picture>,
    is_truncated: bool,
}

/// A text in the engine. Dropping it cancels it.
struct Run {
    events: Pin<Box<dyn Stream<Item = Event> + Send>>,
    vector: oneshot::Receiver<Vec<f32>>,
    tokens: u32,
    is_truncated: bool,
}

impl Run {
    async fn end(mut self) -> Result<(Embedding, Timing), Failure> {
        let lost = || Failure::Engine { message: "a text ended without its vector".to_owned() };
        let timing = loop {
            match self.events.next().await.ok_or_else(lost)? {
                Event::Done { timing, .. } => break timing,
                Event::Failed(failure) => return Err(failure),
                _ => {}
            }
        };
        let values = self.vector.try_recv().map_err(|_| lost())?;
        Ok((Embedding { values, tokens: self.tokens, is_truncated: self.is_truncated }, timing))
    }
}

impl Engine {
    /// Vectors, as they are told.
    pub(super) async fn embed_all(&self, request: EmbedRequest) -> Result<Embeddings, Unserved> {
        let dimensions = request.dimensions;
        let width = self.card.dimensions.unwrap_or_default();
        let checked = self.check_model(request.model.as_ref());
        let checked = checked.and_then(|()| check_dimensions(dimensions, width));
        let (mut vectors, timing) = self.pooled(checked, Wanted::embedded(request)).await?;
        for vector in &mut vectors {
            vector.values = self.vectors.told(std::mem::take(&mut vector.values), dimensions);
        }
        Ok(Embeddings { model: self.card.id.clone(), vectors, timing })
    }

    /// Cosines of vectors.
    pub(super) async fn score_all(&self, request: ScoreRequest) -> Result<Scores, Unserved> {
        let (queries, documents) = (request.queries.len(), request.documents.len());
        let checked = self.check_model(request.model.as_ref());
        let checked = checked.and_then(|()| check_pairs(queries, documents));
        let (vectors, timing) = self.pooled(checked, Wanted::scored(request)).await?;
        let tokens = vectors.iter().map(|vector| vector.tokens).sum();
        let vectors: Vec<Vec<f32>> = vectors.into_iter().map(|vector| vector.values).collect();
        let values = cosines(&vectors, queries);
        Ok(Scores { model: self.card.id.clone(), measure: Measure::Cosine, values, tokens, timing })
    }

    /// What hidden states come to, of a request that was `checked`; and when the last of its texts was done.
    async fn pooled(
        &self,
        checked: Result<(), Refusal>,
        wanted: Wanted,
    ) -> Result<(Vec<Embedding>, Timing), Unserved> {
        let accepted = match checked {
            Ok(()) => self.accept_texts(wanted).await,
            Err(refusal) => Err(refusal),
        };
        let runs = accepted.inspect_err(|refusal| self.shared.meters.refused(refusal))?;
        let ended = try_join_all(runs.into_iter().map(Run::end)).await?;
        let mut last = Timing::default();
        for (_, timing) in &ended {
            last.prepared = last.prepared.max(timing.prepared);
            last.queued = last.queued.max(timing.queued);
            last.vision = last.vision.max(timing.vision);
            last.total = last.total.max(timing.total);
        }
        last.first_token = last.total;
        Ok((ended.into_iter().map(|(vector, _)| vector).collect(), last))
    }

    /// Queues all texts of a request, which take one place among those who wait.
    async fn accept_texts(&self, wanted: Wanted) -> Result<Vec<Run>, Refusal> {
        let _member = self.roll.join();
        self.shared.meters.check_ready()?;
        let (gate, now) = (&self.shared.gate, || self.shared.clock.now());
        let asked = now();
        let mut permit = gate.enter(now()).map_err(refusal)?;
        let tenant = Arc::<str>::from(wanted.terms.tenant.0.as_str());
        permit.weigh(0, wanted.bytes(), now()).map_err(refusal)?;
        let preparing = Preparing { meters: Some(&self.shared.meters) };
        let prepared = self.read_texts(wanted).await;
        preparing.done();
        let prepared = prepared?;
        let tokens: usize = prepared.iter().map(|text| text.parameters.prompt.len()).sum();
        permit.weigh(tokens as u64, token_bytes(tokens), now()).map_err(refusal)?;
        // The last text takes the permit itself, so that whichever leaves the queue last gives the place back.
        let permits = repeat_n(Arc::new(permit), prepared.len());
        let begin = |(text, permit)| {
            let seat = Seat { permit, member: self.roll.join() };
            self.begin(text, (Arc::clone(&tenant), asked), seat)
        };
        prepared.into_iter().zip(permits).map(begin).collect()
    }

    async fn read_texts(&self, wanted: Wanted) -> Result<Vec<Prepared>, Refusal> {
        let Wanted { terms, texts, chats } = wanted;
        let runtime = Handle::try_current().ok();
        let sentences = match texts.is_empty() && !chats.is_empty() {
            true => Vec::new(),
            false => self.vectors.reader.read(texts, runtime.as_ref()).await?,
        };
        let mut sentences = sentences.into_iter();
        let mut prepared = Vec::with_capacity(chats.len());
        for chat in chats {
            let text = || {
                let sentence = sentences.next().unwrap_or_default();
                let is_truncated = sentence.is_truncated();
                (prompted(Prompt::Tokens(sentence.ids), &terms), is_truncated)
            };
            let (request, is_truncated) = chat.map_or_else(text, |chat| (chat, false));
            self.check_images(&request)?;
            let (parameters, pictures) = self.prepare_all(request, Some(self.vectors.pooling)).await?;
            prepared.push(Prepared { parameters, pictures, is_truncated });
        }
        Ok(prepared)
    }

    fn begin(
        &self,
        text: Prepared,
        (tenant, asked): (Arc<str>, Duration),
        seat: Seat,
    ) -> Result<Run, Refusal> {
        let Prepared { parameters, pictures, is_truncated } = text;
        let tokens = u32::try_from(parameters.prompt.len()).unwrap_or(u32::MAX);
        let (sender, vector) = oneshot::channel();
        let ready = Ready { parameters, pictures, vector: Some(sender), asked };
        let events = Box::pin(self.submit(ready, tenant, seat)?);
        Ok(Run { events, vector, tokens, is_truncated })
    }
}
