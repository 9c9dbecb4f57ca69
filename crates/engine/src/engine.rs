//! The engine as the outside sees it.

mod embedding;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flow::queue::{Denial, Denied};
use flow::{Capacity, Gate};
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use memory::rung::Medium;
use models::generation::GenerationDefaults;
use models::{LoadedModel, Pooling};
use protocol::status::{Load, MemoryPlan, ModelStatus, PidState, TierStatus};
use protocol::{
    Adjustment, EmbedRequest, Embeddings, GenerateRequest, Generation, Inference, ModelCard, Phase, Prompt,
    Refusal, ScoreRequest, Scores, Status, Unserved,
};
use tensor::{KvArena, PAGE_TOKENS};
use tokio::sync::oneshot;

use crate::clock::{Clock, SystemClock};
use crate::compute::{Compute, Runner};
use crate::form::Forms;
use crate::meters::{Meters, Stage};
use crate::outbox::outbox;
use crate::parameters::{self, Bounds, Parameters, Prepared};
use crate::prefix::Scope;
use crate::prompt::{Reader, bytes};
use crate::request::{Ready, Request, Seat};
use crate::roll::Roll;
use crate::run_loop::{Command, Rules, RunLoop, Shared, Width};
use crate::sum;
use crate::turns::Turns;
use crate::vision::gallery::Gallery;
use crate::vision::{Asking, Eyes, Picture, View, VisionSettings};
use crate::watch::{Care, Threads};
use crate::weights::Weights;
use crate::{EngineError, EngineSettings, PrefixSharing};
use embedding::Vectors;

/// Prompts of more text than this are read on the runtime's blocking threads, so that they do not hold up others.
const INLINE_BYTES: usize = 4 << 10;

/// A model that serves requests: continuous batching on one thread of its own.
///
/// Dropping the engine fails what is still running; use [`Inference::drain`] or [`Engine::stop`] to let it finish.
pub struct Engine {
    settings: EngineSettings,
    card: ModelCard,
    memory: MemoryPlan,
    pages: usize,
    reader: Reader,
    /// How it makes vectors.
    vectors: Vectors,
    /// Where the model sees.
    eyes: Option<Eyes>,
    forms: Forms,
    defaults: GenerationDefaults,
    bounds: Bounds,
    shared: Shared,
    roll: Arc<Roll>,
    accepted: AtomicU64,
    commands: Sender<Command>,
    /// What it computes on.
    turns: Turns,
    threads: Mutex<Option<Threads>>,
}

/// What became of the accepted requests when an engine stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopReport {
    /// Requests that were failed because the grace was over.
    pub aborted: usize,
}

impl Engine {
    /// Reserves memory, warms the model up and starts the engine's thread. The engine is ready when this returns.
    ///
    /// # Errors
    /// When a setting cannot work, the memory is refused, or the model fails on its first token.
    pub fn start(loaded: LoadedModel, settings: EngineSettings) -> Result<Arc<Self>, EngineError> {
        Self::start_beside(loaded, settings, &Turns::default())
    }

    /// As [`Engine::start`], and takes turns with the other models of `turns`.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub fn start_beside(
        loaded: LoadedModel,
        settings: EngineSettings,
        turns: &Turns,
    ) -> Result<Arc<Self>, EngineError> {
        let (after, revive, identity) =
            (settings.restart_after, settings.revive.clone(), loaded.identity.clone());
        let care = after.zip(revive).map(|(after, revive)| Care { after, revive, identity });
        let (mut engine, mut run_loop) = Self::assemble(loaded, settings, Arc::new(SystemClock::new()))?;
        run_loop.seat = turns.seat();
        engine.turns = turns.clone();
        let threads = Threads::start(run_loop, &engine.shared, care).map_err(EngineError::Thread)?;
        *engine.threads.lock().unwrap_or_else(PoisonError::into_inner) = Some(threads);
        Ok(Arc::new(engine))
    }

    /// An engine and the loop that its thread would run.
    pub(crate) fn assemble(
        loaded: LoadedModel,
        settings: EngineSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, RunLoop), EngineError> {
        let shape = loaded.model.shape();
        settings.check(shape)?;
        let reader = Reader::new(&loaded);
        let eyes = loaded.vision.as_ref().map(|vision| Eyes::new(vision, &settings.vision)).transpose()?;
        let memory = settings.plan(&loaded);
        let (context, pages) = (settings.context(shape), settings.kv_pages(shape));
        let card = card(&loaded, &reader, (&settings.name, context));
        let mut runner = Runner::new(loaded.model, KvArena::new(shape.kv, pages)?);
        runner.warm_up().map_err(|message| EngineError::WarmUp { message })?;
        let compute = Compute::new(runner);
        let (meters, weights) = (Arc::new(Meters::new()), Arc::new(Weights::default()));
        weights.renew(loaded.streamed);
        let shared = Shared { meters, weights, gate: gate(&settings), clock };
        shared.meters.enter(Phase::Ready);
        let (commands, inbox) = mpsc::channel();
        let width = Width {
            tokens: settings.max_batch_tokens,
            sequences: settings.max_sequences,
            drafts: settings.drafts,
        };
        let ends = loaded.generation.eos_token_ids.clone();
        let forms = Forms::new(loaded.tokenizer.clone(), shape.vocabulary, ends, settings.form_timeout);
        let (policy, recorder) = (settings.policy.clone(), settings.recorder.clone());
        let gallery =
            loaded.vision.map(|vision| Gallery::new(vision.tower, &settings.vision, shape.parameters));
        let tier = settings.tier.clone();
        let rules = Rules { policy, width, pid: settings.pid, gallery, recorder, tier };
        let vectors = Vectors::new(loaded.embedder, settings.pooling, context);
        let run_loop = RunLoop::new((compute, loaded.tokenizer), rules, shared.clone(), inbox);
        run_loop.begin(pages);
        let engine = Self {
            card,
            memory,
            settings,
            pages,
            reader,
            vectors,
            eyes,
            forms,
            defaults: loaded.generation,
            bounds: Bounds { vocabulary: shape.vocabulary, context },
            shared,
            roll: Arc::default(),
            accepted: AtomicU64::new(0),
            commands,
            turns: Turns::default(),
            threads: Mutex::default(),
        };
        Ok((engine, run_loop))
    }

    /// How it reads pictures, if it does.
    pub(crate) fn vision(&self) -> &VisionSettings {
        &self.settings.vision
    }

    /// The bytes that the engine planned with.
    pub fn memory(&self) -> MemoryPlan {
        self.memory
    }

    /// Accepts no more, gives what is accepted `grace` to end, fails the rest and ends the engine's thread.
    pub async fn stop(&self, grace: Duration) -> StopReport {
        self.shared.meters.enter(Phase::Draining);
        let (aborted, answer) = oneshot::channel();
        let sent = self.commands.send(Command::Stop { grace, aborted });
        let aborted = if sent.is_ok() { answer.await.unwrap_or(0) } else { 0 };
        StopReport { aborted }
    }

    /// `shown` are pictures that are ready and that the prompt has places for already.
    pub(crate) async fn accept(
        &self,
        request: GenerateRequest,
        shown: Vec<Picture>,
    ) -> Result<Generation, Refusal> {
        let (member, asked) = (self.roll.join(), self.shared.clock.now());
        self.shared.meters.check_ready()?;
        self.check_model(request.model.as_ref())?;
        self.check_images(&request)?;
        parameters::check(&request, self.bounds)?;
        let tenant = Arc::from(request.tenant.0.as_str());
        let mut permit = self.shared.gate.enter(self.shared.clock.now()).map_err(refusal)?;
        permit.weigh(0, bytes(&request.prompt), self.shared.clock.now()).map_err(refusal)?;
        let preparing = Preparing { meters: Some(&self.shared.meters) };
        let id = request.id.clone();
        let prepared = self.prepare_all(request, None).await;
        preparing.done();
        let (parameters, mut pictures) = prepared?;
        pictures.extend(shown);
        let prompt = parameters.prompt.len();
        permit.weigh(prompt as u64, token_bytes(prompt), self.shared.clock.now()).map_err(refusal)?;
        let prompt_tokens = u32::try_from(prompt).unwrap_or(u32::MAX);
        let reasons_at_once = parameters.reasoning.is_inside();
        let ready = Ready { parameters, pictures, vector: None, asked };
        let events = self.submit(ready, tenant, Seat { permit: Arc::new(permit), member })?;
        let mut generation = Generation::new(id, self.card.id.clone(), prompt_tokens, events);
        generation.reasons_at_once = reasons_at_once;
        Ok(generation)
    }

    fn submit(
        &self,
        mut ready: Ready,
        tenant: Arc<str>,
        seat: Seat,
    ) -> Result<impl futures::Stream<Item = protocol::Event> + Send + 'static, Refusal> {
        let order = self.accepted.fetch_add(1, Relaxed);
        if self.settings.prefix == PrefixSharing::Request {
            ready.parameters.scope = Arc::new(Scope::Request(order));
        }
        let commands = self.commands.clone();
        // The engine may have ended; then there is nothing left to cancel.
        let cancel = move || drop(commands.send(Command::Cancel { order }));
        let (outbox, events) = outbox(cancel);
        let now = self.shared.clock.now();
        let request = Request::new((order, now), ready, tenant, seat, outbox);
        if self.commands.send(Command::Submit(Box::new(request))).is_err() {
            return Err(Refusal::NotReady { reason: "it has stopped".to_owned() });
        }
        self.shared.meters.accepted.fetch_add(1, Relaxed);
        Ok(events)
    }

    fn tier_status(&self) -> TierStatus {
        let Some(tier) = &self.settings.tier else { return TierStatus::default() };
        let (held, meters) = (tier.statistics(), &self.shared.meters);
        TierStatus {
            device: tier.place(Medium::Device),
            disk: tier.place(Medium::Disk),
            buffer_bytes: held.host_budget as u64,
            written: meters.tier_written.load(Relaxed),
            loaded: meters.tier_loaded.load(Relaxed),
            declined: meters.tier_declined.load(Relaxed),
            faults: held.faults,
            last_fault: held.last_fault.map(|fault| fault.to_string()),
        }
    }

    fn check_model(&self, model: Option<&String>) -> Result<(), Refusal> {
        match model {
            Some(model) if *model != self.card.id => {
                Err(Refusal::UnknownModel { model: model.clone(), near: vec![self.card.id.clone()] })
            }
            _ => Ok(()),
        }
    }

    fn check_images(&self, request: &GenerateRequest) -> Result<(), Refusal> {
        let shows = !request.images.is_empty() || !request.clips.is_empty();
        if !shows || self.eyes.is_some() {
            return Ok(());
        }
        let message = format!(
            "'{}' reads text and cannot see; leave the images out, or ask a model that sees",
            self.card.id
        );
        Err(Refusal::InvalidParameter { param: "messages".to_owned(), message })
    }

    /// Reads the prompt, and then its pictures: what does not fit is refused before a picture is decoded. With a pooling, its
    /// hidden states are wanted and no text.
    async fn prepare_all(
        &self,
        request: GenerateRequest,
        pooling: Option<Pooling>,
    ) -> Result<(Parameters, Vec<Picture>), Refusal> {
        let (images, clips) = (request.images.clone(), request.clips.clone());
        let eyes = self.eyes.as_ref().filter(|_| !images.is_empty() || !clips.is_empty());
        let outline = eyes.map(|eyes| eyes.outline(&request)).transpose()?.unwrap_or_default();
        let mut prepared = self.prepare(&request, outline.times()).await?;
        prepared.pooling = pooling;
        let priority = request.priority;
        let layout = eyes.map(|eyes| eyes.lay_out(&prepared.prompt, &outline)).transpose()?;
        if let Some(layout) = &layout {
            prepared.prompt.clone_from(&layout.ids);
        }
        let mut parameters = parameters::resolve(request, prepared, &self.defaults, self.bounds)?;
        let mut pictures = Vec::new();
        if let (Some(eyes), Some(layout)) = (eyes, layout) {
            let scope = match self.settings.prefix {
                PrefixSharing::Tenant => Some(Arc::clone(&parameters.scope)),
                PrefixSharing::Request => None,
            };
            let asking = Asking { priority, scope };
            pictures = eyes.prepare((&images, &clips), (&outline, &layout), &asking).await?;
            parameters.view = Some(View::new(layout, &pictures));
        }
        Ok((parameters, pictures))
    }

    /// `times` are those of the steps of each clip.
    async fn prepare(&self, request: &GenerateRequest, times: Vec<Vec<f64>>) -> Result<Prepared, Refusal> {
        let prompt = self.read(&request.prompt, times).await?;
        let reasoning = self.reader.begins(&request.prompt, &prompt);
        let form = match &request.form {
            Some(form) => Some(self.forms.template(form).await?),
            None => None,
        };
        Ok(Prepared { prompt, reasoning, form, pooling: None })
    }

    /// Tokenises on a blocking thread where there is much text and a runtime to ask for one.
    async fn read(&self, prompt: &Prompt, times: Vec<Vec<f64>>) -> Result<Vec<u32>, Refusal> {
        let runtime = tokio::runtime::Handle::try_current().ok();
        match runtime.filter(|_| prompt.text_bytes() > INLINE_BYTES) {
            None => self.reader.read(prompt, &times),
            Some(runtime) => {
                let (reader, prompt) = (self.reader.clone(), prompt.clone());
                let read = runtime.spawn_blocking(move || reader.read(&prompt, &times)).await;
                read.unwrap_or_else(|_| {
                    Err(Refusal::NotReady { reason: "its prompt reader failed".to_owned() })
                })
            }
        }
    }
}

/// What clients are told of a model.
fn card(loaded: &LoadedModel, reader: &Reader, (name, context): (&str, usize)) -> ModelCard {
    let shape = loaded.model.shape();
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    ModelCard {
        id: name.to_owned(),
        family: loaded.family.to_owned(),
        context: count(context),
        vocabulary: count(shape.vocabulary),
        parameters: shape.parameters,
        dtype: loaded.precision(),
        chat: reader.has_template(),
        tasks: embedding::tasks(&loaded.embedder),
        dimensions: Some(count(shape.hidden)),
        reasoning: reader.reasoning(),
        calls: reader.calls(),
        created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
    }
}

/// Bytes of the ids of so many tokens.
fn token_bytes(tokens: usize) -> u64 {
    (tokens * size_of::<u32>()) as u64
}

/// What bounds the requests that wait, before any work is spent on them.
fn gate(settings: &EngineSettings) -> Gate {
    let capacity = Capacity::items(settings.queue_requests).cost(settings.queue_tokens as u64);
    let gate = Gate::new(capacity.bytes(settings.queue_bytes as u64));
    gate.set_rate(settings.rate);
    gate
}

pub(crate) fn refusal(denied: Denied) -> Refusal {
    let Denied { reason, held: queued, retry_after } = denied;
    match reason {
        Denial::Rate => Refusal::RateLimited { retry_after },
        _ => Refusal::QueueFull { queued, retry_after },
    }
}

/// Counts a request as cancelled if its future is dropped while its prompt is read.
struct Preparing<'a> {
    meters: Option<&'a Meters>,
}

impl Preparing<'_> {
    fn done(mut self) {
        self.meters = None;
    }
}

impl Drop for Preparing<'_> {
    fn drop(&mut self) {
        if let Some(meters) = self.meters {
            meters.cancelled(Stage::Preparing);
        }
    }
}

impl Inference for Engine {
    fn models(&self) -> Vec<ModelCard> {
        vec![self.card.clone()]
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<Generation, Refusal>> {
        self.accept(request, Vec::new())
            .inspect(|outcome| _ = outcome.as_ref().map_err(|r| self.shared.meters.refused(r)))
            .boxed()
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, Unserved>> {
        self.embed_all(request).boxed()
    }

    fn score(&self, request: ScoreRequest) -> BoxFuture<'_, Result<Scores, Unserved>> {
        self.score_all(request).boxed()
    }

    fn status(&self) -> Status {
        let Shared { meters, gate, clock, weights } = &self.shared;
        let now = clock.now();
        let oldest = Duration::from_micros(meters.oldest_queued.load(Relaxed));
        let (phase, health) = (meters.phase(), meters.health(now, self.settings.stall_after));
        let model = ModelStatus {
            id: self.card.id.clone(),
            phase,
            health: health.clone(),
            queued: gate.held() as u64,
            running: meters.running.load(Relaxed),
            memory: self.memory,
        };
        let load = Load {
            queued: gate.held() as u64,
            oldest_queued_seconds: now.saturating_sub(oldest).as_secs_f64(),
            queue_capacity: gate.capacity().items as u64,
            running: meters.running.load(Relaxed),
            kv_pages_used: meters.pages_used.load(Relaxed),
            kv_pages_cached: meters.pages_cached.load(Relaxed),
            kv_pages_total: self.pages as u64,
            kv_page_tokens: PAGE_TOKENS as u64,
        };
        let status = Status {
            phase,
            health,
            devices: vec![self.turns.status(&model)],
            models: vec![model],
            load,
            vision: self.eyes.as_ref().map(|eyes| meters.sight.status(&eyes.meters())),
            pid: PidState {
                setpoint_seconds: f64::from_bits(meters.pid_setpoint.load(Relaxed)),
                error_seconds: f64::from_bits(meters.pid_error.load(Relaxed)),
                output_tokens: meters.pid_output.load(Relaxed),
            },
            weights: weights.status(),
            tier: self.tier_status(),
            counters: meters.counters(),
            latency: meters.latencies(),
            ..Status::default()
        };
        sum::with_figures(status)
    }

    fn adjust(&self, adjustment: Adjustment) -> BoxFuture<'_, Result<(), Refusal>> {
        if adjustment == Adjustment::Rebalance {
            // There is one of it.
            return ready(Ok(())).boxed();
        }
        let (adjusted, answer) = oneshot::channel();
        // If the engine has ended, the answer says so.
        let _ = self.commands.send(Command::Adjust { adjustment, adjusted });
        let stopped = || Refusal::NotReady { reason: "it has stopped".to_owned() };
        async move { answer.await.map_err(|_| stopped())? }.boxed()
    }

    fn drain(&self) -> BoxFuture<'_, ()> {
        self.shared.meters.enter(Phase::Draining);
        self.roll.empty().boxed()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let (aborted, _) = oneshot::channel();
        // If the engine has ended already, there is nothing to be told.
        let _ = self.commands.send(Command::Stop { grace: Duration::ZERO, aborted });
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Shared { meters, clock, .. } = &self.shared;
        let is_stuck = || meters.quiet(clock.now()).is_some_and(|quiet| quiet > self.settings.stall_after);
        if let Some(mut threads) = threads {
            threads.stop_watching();
            threads.join(is_stuck);
        }
    }
}
