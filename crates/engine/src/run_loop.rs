//! The engine's thread: it owns the model, the pages and everything that runs, and it never awaits.
//!
//! The outside reaches it through the closed set of [`Command`]s. With work to do it takes the commands that have
//! come in and makes a step; without, it sleeps on the channel.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use flow::Gate;
use flow::queue::policy::PolicySettings;
use models::tokenizer::Tokenizer;
use protocol::{Adjustment, Failure, Phase, Refusal};
use tensor::PAGE_TOKENS;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::compute::{Compute, Outcome, Runner};
use crate::line::Line;
use crate::meters::{Meters, Stage, micros};
use crate::pacing::{Pacing, Seen};
use crate::pid::PidSettings;
use crate::plan::{Room, Slot, StepPlan};
use crate::prefix::PrefixCache;
use crate::pressure::Easing;
use crate::request::Request;
use crate::sequence::Sequence;
use crate::step::Flight;
use crate::step_time::StepTime;
use crate::tier::{KvTier, Tier};
use crate::trace::Recorder;
use crate::turns::{Seat, Turns};
use crate::vision::gallery::{Gallery, Reading};
use crate::weights::Weights;

/// Everything that can reach the engine's thread.
pub(crate) enum Command {
    /// Queue an accepted request.
    Submit(Box<Request>),
    /// Nobody listens to the request of this order any more.
    Cancel {
        /// Its order.
        order: u64,
    },
    /// Work differently from now on.
    Adjust {
        /// How.
        adjustment: Adjustment,
        /// Hears whether that was possible.
        adjusted: oneshot::Sender<Result<(), Refusal>>,
    },
    /// Finish what is accepted, for so long at most, then end the thread.
    Stop {
        /// How long.
        grace: Duration,
        /// Hears how many requests had to be failed.
        aborted: oneshot::Sender<usize>,
    },
}

/// What the engine's thread shares with the outside.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) meters: Arc<Meters>,
    pub(crate) weights: Arc<Weights>,
    pub(crate) gate: Gate,
    pub(crate) clock: Arc<dyn Clock>,
}

/// How much runs at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Width {
    pub(crate) tokens: usize,
    pub(crate) sequences: usize,
    /// Tokens that a step may try.
    pub(crate) drafts: usize,
}

/// How the loop was told to work.
pub(crate) struct Rules {
    pub(crate) policy: PolicySettings,
    pub(crate) width: Width,
    pub(crate) pid: PidSettings,
    pub(crate) gallery: Option<Gallery>,
    pub(crate) recorder: Option<Recorder>,
    pub(crate) tier: Option<KvTier>,
}

/// How long the engine waits for something to come while there is something to be looked after.
const LOOK: Duration = Duration::from_millis(1);

/// What the loop has come to.
pub(crate) enum Doing {
    /// The tower is to be run on this; then comes [`RunLoop::saw`].
    Look(Reading),
    /// The model is to be run on this; then come [`RunLoop::settle`] and [`RunLoop::take_back`].
    Compute(Box<Runner>),
    /// It has looked around, or ended a step.
    Looked,
    /// It is over.
    End,
}

/// All that the engine's thread owns.
pub(crate) struct RunLoop {
    pub(crate) compute: Compute,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) pages: PrefixCache,
    /// Where pages go that leave memory.
    pub(crate) tier: Option<Tier>,
    pub(crate) width: Width,
    pub(crate) pacing: Pacing,
    /// How long steps take.
    pub(crate) step_time: StepTime,
    /// The same of steps that only write.
    pub(crate) sampled_time: StepTime,
    pub(crate) recorder: Option<Recorder>,
    pub(crate) shared: Shared,
    /// Requests that wait.
    pub(crate) line: Line,
    /// Requests that have left the line.
    pub(crate) requests: HashMap<u64, Request>,
    /// Sequences with pages, by rank.
    pub(crate) running: Vec<Sequence>,
    /// Sequences of started requests that have no pages (yet, or any more), by rank.
    pub(crate) lobby: Vec<Sequence>,
    /// Requests whose pictures have yet to be read, where the model sees.
    pub(crate) gallery: Option<Gallery>,
    /// What the tower did in this step.
    pub(crate) seen: Seen,
    pub(crate) slots: Vec<Slot>,
    /// By page: how many have been seen to hold it; zero between two counts.
    pub(crate) holders: Vec<u32>,
    pub(crate) plan: StepPlan,
    pub(crate) outcome: Outcome,
    /// Requests that cannot go on.
    pub(crate) broken: Vec<(u64, Failure)>,
    /// Requests all of whose choices ended in this step.
    pub(crate) completed: Vec<Request>,
    pub(crate) text: String,
    /// Whether the last step failed.
    pub(crate) faulty: bool,
    /// How far the step is.
    pub(crate) flight: Flight,
    /// Requests that a step computed which did not end; each is computed alone until it has been.
    pub(crate) suspects: BTreeSet<u64>,
    /// What is given up while memory is short.
    pub(crate) easing: Easing,
    /// Its turns on the compute threads.
    pub(crate) seat: Seat,
    /// When the turn began, while there is one.
    pub(crate) turn: Option<Instant>,
    commands: Receiver<Command>,
    stopping: Option<(Duration, oneshot::Sender<usize>)>,
}

impl RunLoop {
    /// A loop with nothing to do.
    pub(crate) fn new(
        (compute, tokenizer): (Compute, Tokenizer),
        rules: Rules,
        shared: Shared,
        commands: Receiver<Command>,
    ) -> Self {
        Self {
            pages: PrefixCache::new(compute.pages()).naming(rules.tier.as_ref().map(KvTier::digests)),
            tier: rules.tier.as_ref().map(Tier::new),
            holders: vec![0; compute.pages()],
            compute,
            tokenizer,
            pacing: Pacing::new(rules.pid, rules.width.tokens),
            step_time: StepTime::default(),
            sampled_time: StepTime::default(),
            recorder: rules.recorder,
            width: rules.width,
            shared,
            line: Line::new(rules.policy),
            requests: HashMap::new(),
            running: Vec::new(),
            lobby: Vec::new(),
            gallery: rules.gallery,
            seen: Seen::default(),
            slots: Vec::new(),
            plan: StepPlan::default(),
            outcome: Outcome::default(),
            broken: Vec::new(),
            completed: Vec::new(),
            text: String::new(),
            faulty: false,
            flight: Flight::default(),
            suspects: BTreeSet::new(),
            easing: Easing::default(),
            seat: Turns::default().seat(),
            turn: None,
            commands,
            stopping: None,
        }
    }

    /// Goes on to the point where the model runs, or where it is over: told to stop, or nobody is left who could tell it
    /// anything.
    pub(crate) fn proceed(&mut self) -> Doing {
        if self.turn.is_none() {
            if !self.listen() {
                return Doing::End;
            }
            if !self.has_work() {
                return Doing::Looked;
            }
            self.turn = Some(self.seat.begin());
            self.begin_step();
        }
        if let Some(reading) = self.look() {
            return Doing::Look(reading);
        }
        if let Some(runner) = self.gather() {
            return Doing::Compute(runner);
        }
        self.emit();
        self.turn.take().into_iter().for_each(|turn| self.seat.end(turn));
        Doing::Looked
    }

    /// Whether the model runs, or the tower.
    pub(crate) fn is_computing(&self) -> bool {
        self.compute.is_running() || self.gallery.as_ref().is_some_and(Gallery::is_reading)
    }

    /// Takes back what the model ran on.
    pub(crate) fn take_back(&mut self, runner: Box<Runner>) {
        self.compute.take_back(runner);
    }

    /// Takes the commands that have come in, waiting for one if there is nothing else to do. False when it is time to
    /// end.
    pub(crate) fn listen(&mut self) -> bool {
        loop {
            if self.is_over() {
                return false;
            }
            let idle = !self.has_work();
            let next = if idle {
                self.seat.rest();
                match self.save() {
                    // There is more to be saved as soon as what is being written has been.
                    true => match self.hear() {
                        Err(TryRecvError::Empty) => continue,
                        heard => heard,
                    },
                    false => self.commands.recv().map_err(|_| TryRecvError::Disconnected),
                }
            } else if self.only_waits_for_pages() {
                self.hear()
            } else {
                self.commands.try_recv()
            };
            match next {
                Ok(command) => self.obey(command),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return !idle,
            }
        }
    }

    /// Waits a moment for a command.
    fn hear(&self) -> Result<Command, TryRecvError> {
        self.commands.recv_timeout(LOOK).map_err(|error| match error {
            RecvTimeoutError::Timeout => TryRecvError::Empty,
            RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
        })
    }

    /// Takes the commands that have come in and does not wait for any.
    pub(crate) fn obey_all(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            self.obey(command);
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Submit(request) => {
                let now = self.shared.clock.now();
                if self.line.is_empty() {
                    self.shared.gate.idle(now);
                }
                self.record(|| request.trace_arrival());
                self.foresee_pages(&request.parameters);
                if let Some(failure) = self.out_of_reach(&request, now) {
                    self.report(*request, failure);
                } else if let Err(request) = self.line.push(*request, now) {
                    request.fail(Failure::ShuttingDown);
                }
                self.publish();
            }
            Command::Cancel { order } => self.cancel(order),
            Command::Adjust { adjustment, adjusted } => {
                // Whoever asked may have gone away; the change is made all the same.
                let _ = adjusted.send(self.adjust(&adjustment));
                self.publish();
            }
            Command::Stop { grace, aborted } => {
                self.shared.meters.enter(Phase::Draining);
                self.stopping = Some((self.shared.clock.now().saturating_add(grace), aborted));
            }
        }
    }

    fn adjust(&mut self, adjustment: &Adjustment) -> Result<(), Refusal> {
        match adjustment {
            Adjustment::ClearPrefixCache => {
                self.pages.clear();
                self.gallery.iter_mut().for_each(Gallery::clear);
                self.tier.iter_mut().for_each(Tier::clear);
            }
            Adjustment::Relief(relief) => self.ease(*relief),
            Adjustment::InterTokenTarget(target) => self.aim(*target),
            Adjustment::Queue { policy, age_step, weights } => {
                self.line.set_policy(policy.as_deref(), *age_step, weights)?;
            }
            _ => {
                let message = "this engine cannot be adjusted in that way".to_owned();
                return Err(Refusal::InvalidParameter { param: "adjustment".to_owned(), message });
            }
        }
        Ok(())
    }

    /// Whether anything waits or runs.
    pub(crate) fn has_work(&self) -> bool {
        !(self.line.is_empty() && self.lobby.is_empty() && self.running.is_empty()) || self.looks()
    }

    fn is_over(&self) -> bool {
        self.stopping.as_ref().is_some_and(|(until, _)| !self.has_work() || self.shared.clock.now() >= *until)
    }

    /// What there is to plan with.
    pub(crate) fn room(&self) -> Room {
        Room {
            free_pages: self.pages.pool().available(),
            page_tokens: PAGE_TOKENS,
            tokens: self.step_tokens(),
            seeing: self.seeing_tokens(),
            sequences: self.width.sequences,
        }
    }

    /// Forgets a request. It is dropped last, so that whoever waits for the engine to be empty sees all pages free.
    fn cancel(&mut self, order: u64) {
        let stage = self.stage(order);
        let started = self.requests.remove(&order);
        started.iter().for_each(|request| self.let_go(request));
        let Some(_request) = started.or_else(|| self.line.remove(order)) else { return };
        self.retire(order);
        self.publish();
        self.shared.meters.cancelled(stage);
    }

    /// What a request is doing.
    fn stage(&self, order: u64) -> Stage {
        let own = |sequence: &&Sequence| sequence.rank.order == order;
        let mut own = self.running.iter().chain(&self.lobby).filter(own).peekable();
        if self.gallery.as_ref().is_some_and(|gallery| gallery.holds(order)) {
            Stage::Prefill
        } else if own.peek().is_none() {
            Stage::Queued
        } else if own.any(Sequence::is_reading) {
            Stage::Prefill
        } else {
            Stage::Decode
        }
    }

    /// Takes a started request out of the engine and tells its client why.
    pub(crate) fn fail(&mut self, order: u64, failure: Failure) {
        if let Some(request) = self.requests.remove(&order) {
            self.let_go(&request);
            self.retire(order);
            self.publish();
            self.report(request, failure);
        }
    }

    /// Tells a client why its request, which has left the engine, was not completed.
    pub(crate) fn report(&self, request: Request, failure: Failure) {
        self.shared.meters.failed(&failure);
        tracing::debug!(request = request.order, tenant = %request.tenant, %failure, "request failed");
        request.fail(failure);
    }

    /// Removes all sequences of a request and frees their pages.
    fn retire(&mut self, order: u64) {
        let pages = &mut self.pages;
        for place in [&mut self.running, &mut self.lobby] {
            place.retain_mut(|sequence| {
                let stays = sequence.rank.order != order;
                if !stays {
                    sequence.release(pages);
                }
                stays
            });
        }
    }

    /// Writes the gauges that [`crate::Engine`] reports, and the heartbeat.
    pub(crate) fn publish(&self) {
        let meters = &self.shared.meters;
        meters.oldest_queued.store(self.line.oldest().map_or(u64::MAX, micros), Relaxed);
        meters.running.store(self.running.len() as u64, Relaxed);
        self.publish_sight();
        meters.pages_used.store(self.pages.pool().used() as u64, Relaxed);
        meters.pages_cached.store(self.pages.pool().idle() as u64, Relaxed);
        meters.progress(usize::from(self.has_work()), self.shared.clock.now());
    }

    /// Fails whoever is left, also those whose submission was not read yet.
    pub(crate) fn end(mut self) {
        let stopping = self.stopping.take();
        while let Ok(command) = self.commands.try_recv() {
            self.obey(command);
        }
        let started: Vec<u64> = self.requests.keys().copied().collect();
        let waiting = self.line.drain();
        let aborted_now = started.len() + waiting.len();
        for order in started {
            self.fail(order, Failure::ShuttingDown);
        }
        for request in waiting {
            self.report(request, Failure::ShuttingDown);
        }
        self.publish();
        // What there are buffers for is kept; nothing is waited for.
        self.save();
        self.shared.meters.enter(Phase::Stopped);
        if let Some((_, aborted)) = stopping {
            // Whoever asked may have gone away; the answer is then of no use.
            let _ = aborted.send(aborted_now);
        }
    }
}
