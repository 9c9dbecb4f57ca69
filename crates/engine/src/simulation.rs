//! A recorded trace run again under other settings, in no time: the engine as it is, with a model that computes
//! nothing and a clock that moves by what a step would have cost.

mod cost;
mod tower;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use models::generation::GenerationDefaults;
use models::vision::{Grid, Pixels};
use models::{Batch, CausalLm, LoadedModel, ModelShape, Outputs};
use protocol::{Event, GenerateRequest, Generation, Prompt, TenantId};
use tensor::{Kernels, KvArena, KvDtype, KvLayout, Span};

pub use cost::CostModel;

use crate::clock::Clock;
use crate::run_loop::RunLoop;
use crate::trace::{Arrival, End};
use crate::vision::gallery::Gallery;
use crate::vision::{Picture, VisionSettings};
use crate::{Engine, EngineError, EngineSettings};
use tower::CostlyTower;

/// A request to be run again.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// How it came.
    pub arrival: Arrival,
    /// What became of it when it was recorded.
    pub end: End,
}

/// What a run gave. Times are in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// From arrival to first token, for each request that got one.
    pub first_token: Vec<f64>,
    /// Between two tokens of a stream.
    pub inter_token: Vec<f64>,
    /// Tokens of prompts that were read and of replies that were written.
    pub tokens: u64,
    /// From the first arrival to the last end.
    pub seconds: f64,
    /// Requests that were completed.
    pub completed: usize,
    /// Requests that were refused or failed.
    pub lost: usize,
}

/// Runs the jobs, which come in order of arrival, on the engine with these settings. Prompts are made up and share
/// nothing: what a cache held of a prompt when it was recorded is left out of it.
///
/// # Errors
/// When a setting cannot work.
pub fn replay(
    jobs: &[Job],
    cost: CostModel,
    loaded: LoadedModel,
    settings: EngineSettings,
) -> Result<Outcome, EngineError> {
    let clock = Arc::new(VirtualClock::default());
    let model = Costly { cost, clock: clock.clone(), logits: Vec::new() };
    let generation = GenerationDefaults::default();
    let loaded = LoadedModel { model: Box::new(model), chat_template: None, generation, ..loaded };
    let settings = EngineSettings { recorder: None, ..settings };
    // Texts that are made up repeat themselves in their own way.
    let settings = EngineSettings { drafts: 0, ..settings };
    let (engine, mut run_loop) = Engine::assemble(loaded, settings, clock.clone())?;
    let tower = Box::new(CostlyTower::new(cost, clock.clone()));
    // What is made of pictures takes no memory worth a bound here.
    let roomy = VisionSettings { feature_bytes: usize::MAX, below: None, ..engine.vision().clone() };
    run_loop.gallery = Some(Gallery::new(tower, &roomy, 0));
    // Warming up has moved the clock.
    clock.set(Duration::from_micros(jobs.first().map_or(0, |job| job.arrival.at_us)));
    Ok(Play { engine, run_loop, clock, streams: Vec::new(), outcome: Outcome::default() }.run(jobs))
}

struct Play {
    engine: Engine,
    run_loop: RunLoop,
    clock: Arc<VirtualClock>,
    streams: Vec<Stream>,
    outcome: Outcome,
}

struct Stream {
    generation: Generation,
    came: Duration,
    prompt: u64,
    /// When the last token of each choice came; empty where no tokens are wanted.
    last: Vec<Option<Duration>>,
    ended: bool,
}

impl Play {
    fn run(mut self, jobs: &[Job]) -> Outcome {
        let start = self.clock.now();
        let mut coming = jobs.iter().peekable();
        loop {
            while let Some(job) =
                coming.next_if(|job| Duration::from_micros(job.arrival.at_us) <= self.clock.now())
            {
                self.submit(job);
            }
            self.run_loop.obey_all();
            if self.run_loop.has_work() {
                self.run_loop.step();
                // A step that had nothing to compute still takes a moment.
                self.clock.advance(Duration::from_micros(1));
                self.listen();
            } else if let Some(job) = coming.peek() {
                self.clock.set(Duration::from_micros(job.arrival.at_us));
            } else {
                break;
            }
        }
        self.outcome.seconds = self.clock.now().saturating_sub(start).as_secs_f64();
        self.outcome
    }

    fn submit(&mut self, job: &Job) {
        let Job { arrival, end } = job;
        let prompt = arrival.prompt.saturating_sub(end.cached).max(1);
        let mut request = GenerateRequest::new("job", Prompt::Tokens(made_up(arrival.order, prompt)));
        request.choices = arrival.choices.max(1);
        let written = end.written.div_ceil(u64::from(request.choices)).max(1);
        request.limits.max_tokens = Some(u32::try_from(written).unwrap_or(u32::MAX));
        request.limits.ignore_eos = true;
        request.sampling.temperature = Some(0.0);
        request.tenant = TenantId(arrival.tenant.to_string());
        request.priority = arrival.priority;
        request.deadline = arrival.deadline_us.map(Duration::from_micros);
        let choices = request.choices as usize;
        let pictures = (end.vision > 0).then(|| picture(arrival.order, end.vision));
        match self.engine.accept(request, pictures.into_iter().collect()).now_or_never() {
            Some(Ok(generation)) => {
                let came = self.clock.now();
                // Where a vector was asked for, the token that ends the run is nobody's.
                let last = vec![None; if arrival.max_tokens > 0 { choices } else { 0 }];
                self.streams.push(Stream { generation, came, prompt, last, ended: false });
            }
            _ => self.outcome.lost += 1,
        }
    }

    /// Hears what the last step gave.
    fn listen(&mut self) {
        let now = self.clock.now();
        for stream in &mut self.streams {
            while let Some(Some(event)) = stream.generation.next().now_or_never() {
                stream.hear(&event, now, &mut self.outcome);
            }
        }
        self.streams.retain(|stream| !stream.ended);
    }
}

impl Stream {
    fn hear(&mut self, event: &Event, now: Duration, outcome: &mut Outcome) {
        match event {
            Event::Delta(delta) if !delta.tokens.is_empty() && !self.last.is_empty() => {
                if self.last.iter().all(Option::is_none) {
                    outcome.first_token.push(now.saturating_sub(self.came).as_secs_f64());
                }
                let last = &mut self.last[delta.choice as usize];
                if let Some(last) = last.replace(now) {
                    outcome.inter_token.push(now.saturating_sub(last).as_secs_f64());
                }
                outcome.tokens += delta.tokens.len() as u64;
            }
            Event::Done { .. } => {
                self.ended = true;
                outcome.completed += 1;
                outcome.tokens += self.prompt;
            }
            Event::Failed(_) => {
                self.ended = true;
                outcome.lost += 1;
            }
            _ => {}
        }
    }
}

const VOCABULARY: usize = 256;

/// A picture that takes so much of the tower's work, and is nobody else's.
fn picture(order: u64, work: u64) -> Picture {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&order.to_le_bytes());
    let grid = Grid { h: 1, w: usize::try_from(work).unwrap_or(usize::MAX) };
    Picture::of(hash, grid, Pixels::Values(Arc::default()))
}

/// Tokens that no other job has, as far as a page shows.
fn made_up(order: u64, count: u64) -> Vec<u32> {
    (0..count).map(|place| (crate::sampler::mix(order ^ (place << 32)) % VOCABULARY as u64) as u32).collect()
}

/// Time that moves only when it is told to.
#[derive(Default)]
struct VirtualClock {
    nanos: AtomicU64,
}

impl VirtualClock {
    fn advance(&self, by: Duration) {
        self.nanos.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    fn set(&self, to: Duration) {
        self.nanos.store(u64::try_from(to.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Relaxed))
    }
}

/// A model that lets time pass instead of computing.
struct Costly {
    cost: CostModel,
    clock: Arc<VirtualClock>,
    logits: Vec<f32>,
}

impl CausalLm for Costly {
    fn shape(&self) -> ModelShape {
        ModelShape {
            vocabulary: VOCABULARY,
            hidden: 1,
            max_positions: usize::MAX,
            parameters: 0,
            weight_bytes: 0,
            workspace_bytes: 0,
            kv: KvLayout { layers: 1, heads: 1, dim: 1, dtype: KvDtype::F32 },
        }
    }

    fn twin(&self, _: Arc<dyn Kernels>) -> Box<dyn CausalLm> {
        Box::new(Self { cost: self.cost, clock: Arc::clone(&self.clock), logits: Vec::new() })
    }

    fn forward(&mut self, batch: &Batch, _: &mut KvArena) -> Outputs<'_> {
        let spans = &batch.ragged.spans;
        let decode = spans.iter().filter(|span| is_decode(span)).count() as u64;
        let attended = spans.iter().map(|span| attended(span.context, span.rows)).sum();
        let prompt = batch.tokens.len() as u64 - decode;
        self.clock.advance(self.cost.step(decode, prompt, attended));
        self.logits.clear();
        self.logits.resize(batch.outputs.len() * VOCABULARY, 0.0);
        Outputs { logits: &self.logits, states: &[], pool: None }
    }
}

/// A single token behind others is that of a stream; a prompt of which one token is left costs the same.
fn is_decode(span: &Span) -> bool {
    span.rows == 1 && span.context > 0
}

/// Keys that `rows` tokens attend to behind `context` others, each to all up to itself.
pub(crate) fn attended(context: usize, rows: usize) -> u64 {
    (rows * context + rows * (rows + 1) / 2) as u64
}
