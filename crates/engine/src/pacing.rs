//! How large steps are, measured and controlled, and what is taken down of them.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use models::vision::Features;

use crate::meters::micros;
use crate::pid::{Pid, PidSettings};
use crate::plan::Work;
use crate::request::Request;
use crate::run_loop::RunLoop;
use crate::simulation::attended;
use crate::trace::{Entry, Start, Step};
use crate::vision::gallery::{Gallery, Glance, Reading};

/// What the tower did in a step.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// When it began the picture that it reads now, or went on with it.
    began: Duration,
    took: Duration,
    /// Multiplications that it may still do.
    left: u64,
    /// The prompt tokens that it stands for.
    tokens: usize,
}

/// The controller, if there is a target, and what one would be made of.
#[derive(Debug)]
pub(crate) struct Pacing {
    settings: PidSettings,
    most: usize,
    pid: Option<Pid>,
    /// Seconds that a token of a prompt with pictures takes beside streams, once one was read.
    seeing: Option<f64>,
}

/// The tower has at least so much of a step, also before it is known how long one takes.
const LEAST_SLICE: Duration = Duration::from_millis(1);

/// Prompts with pictures have at least so many tokens of a step, and as many before it is known how long one takes.
const LEAST_SEEING: usize = 16;

/// They are held to have taken at least this share of a step, however quick it was: so from step to step no more than four times
/// as many are read.
const LEAST_PART: f64 = 0.25;

/// How much of what is known of them a new step replaces.
const NEWS: f64 = 0.5;

/// Where nothing is aimed at, pictures take so much of the time that streams take for themselves in a step. With all of it
/// the time between tokens would be twice as long as without pictures, and now and then longer.
const BESIDE: f64 = 0.5;

impl Pacing {
    /// For steps of at most so many tokens.
    pub(crate) fn new(settings: PidSettings, most: usize) -> Self {
        let pid = settings.target.map(|target| Pid::new(target, settings.gains, most));
        Self { settings, most, pid, seeing: None }
    }
}

impl RunLoop {
    /// Takes down what the engine runs with.
    pub(crate) fn begin(&self, pages: usize) {
        self.tell_pace();
        self.record(|| {
            Entry::Start(Start {
                max_batch_tokens: self.width.tokens,
                max_sequences: self.width.sequences,
                kv_pages: pages,
                policy: self.line.policy().discipline.name.to_owned(),
                target_us: self.pacing.settings.target.map(micros),
            })
        });
    }

    /// The most tokens of the next step. Where no stream waits for its next token, nothing is gained by a small one.
    pub(crate) fn step_tokens(&self) -> usize {
        let streams = self.streams();
        let all = match &self.pacing.pid {
            Some(pid) if streams > 0 => {
                let readers = self.running.len() - streams;
                (streams + pid.tokens().max(readers)).min(self.width.tokens)
            }
            _ => self.width.tokens,
        };
        // What the tower takes is missing to prompts, but everyone who runs goes on.
        (all - self.tower_tokens(all - streams.min(all))).max(self.running.len()).max(1)
    }

    /// The most prompt tokens of a step that belong to those who see. Where nothing is aimed at, texts may fill a step beside
    /// streams, but a picture is hundreds of tokens for one of a conversation: these take no longer than its reading by the
    /// tower does.
    pub(crate) fn seeing_tokens(&self) -> usize {
        match self.streams() {
            streams if streams > 0 && self.pacing.pid.is_none() => {
                let time = BESIDE * self.sampled_time.step(streams);
                self.pacing.seeing.map_or(0, |token| (time / token) as usize).max(LEAST_SEEING)
            }
            _ => usize::MAX,
        }
    }

    /// How many tokens of prompts with pictures are in the plan, beside one for each.
    fn seeing(&self) -> usize {
        let who_see = self.plan.work.iter().filter(|work| self.slots[work.index].sees);
        who_see.map(|work| work.rows - 1).sum()
    }

    /// Learns how long prompts with pictures take beside so many streams from a step in which nobody else reads.
    fn observe_seeing(&mut self, streams: u64, took: f64) {
        let sees = |work: &Work| work.rows == 1 || self.slots[work.index].sees;
        let seeing = self.seeing();
        if streams == 0 || seeing == 0 || !self.plan.work.iter().all(sees) {
            return;
        }
        let own = self.sampled_time.step(streams as usize);
        let news = (took - own).max(LEAST_PART * took) / seeing as f64;
        let known = &mut self.pacing.seeing;
        *known = Some(known.map_or(news, |known| known + NEWS * (news - known)));
    }

    fn streams(&self) -> usize {
        self.running.iter().filter(|sequence| !sequence.is_reading()).count()
    }

    /// How many of the prompt tokens of a step the tower's work may stand for.
    fn tower_tokens(&self, prompt: usize) -> usize {
        match &self.gallery {
            Some(gallery) if gallery.is_busy() => (prompt as f64 * gallery.share) as usize,
            _ => 0,
        }
    }

    /// Whether the tower has something to do.
    pub(crate) fn looks(&self) -> bool {
        self.gallery.as_ref().is_some_and(Gallery::is_busy)
    }

    /// Decides how much the tower reads in the room that the plan has left for it: its share of the step, and what prompts
    /// do not use.
    pub(crate) fn plan_look(&mut self) {
        self.seen = Seen::default();
        let streams = self.streams();
        let reads: usize = self.plan.work.iter().map(|work| work.rows).sum::<usize>().saturating_sub(streams);
        let seeing = self.seeing() as f64 * self.pacing.seeing.unwrap_or_default();
        let (prompt, target) = match &self.pacing.pid {
            Some(pid) if streams > 0 => (pid.tokens(), Some(pid.target())),
            _ => (self.width.tokens.saturating_sub(streams), None),
        };
        let Some(gallery) = self.gallery.as_mut().filter(|gallery| gallery.is_busy()) else { return };
        let tokens = prompt.saturating_sub(reads).max(1);
        let time = match target {
            Some(target) => Some(target.mul_f64(if reads > 0 { gallery.share } else { 0.5 })),
            // Nothing is aimed at, but a picture can take as long as hundreds of steps. What the plan has given to those
            // who see already is part of what pictures take.
            None if streams > 0 => {
                let left = BESIDE * self.sampled_time.step(streams) - seeing;
                Some(Duration::from_secs_f64(left.max(0.0)).max(LEAST_SLICE))
            }
            None => None,
        };
        self.seen.left = gallery.allowance(tokens, time);
    }

    /// The next picture for the tower, while it has time for one.
    pub(crate) fn look(&mut self) -> Option<Reading> {
        self.seen.began = self.shared.clock.now();
        self.gallery.as_mut()?.lend(self.seen.left)
    }

    /// Goes on with what the tower has read.
    pub(crate) fn saw(&mut self, reading: Reading, read: Result<Option<Features>, String>) {
        let Some(gallery) = &mut self.gallery else { return };
        let is_whole = !matches!(read, Ok(None));
        let Glance { ready, lost, work, read } = gallery.take_back(reading, read);
        let took = self.shared.clock.now().saturating_sub(self.seen.began);
        gallery.observe(work, took);
        self.seen.took += took;
        self.seen.tokens += gallery.tokens(work);
        // A picture that is not whole has used up all that there was.
        self.seen.left = if is_whole { self.seen.left.saturating_sub(work) } else { 0 };
        self.shared.meters.sight.count(read, took);
        for (rank, features) in ready {
            self.seat_seeing(rank, features);
        }
        self.broken.extend(lost);
    }

    /// Writes what is to be known of the tower.
    pub(crate) fn publish_sight(&self) {
        if let Some(gallery) = &self.gallery {
            self.shared.meters.sight.publish(gallery.queries, (gallery.bytes(), gallery.waiting()));
        }
    }

    /// Aims at another time between tokens, or at none.
    pub(crate) fn aim(&mut self, target: Option<Duration>) {
        let pacing = &mut self.pacing;
        match (&mut pacing.pid, target) {
            (Some(pid), Some(target)) => pid.retarget(target),
            (pid, target) => *pid = target.map(|target| Pid::new(target, pacing.settings.gains, pacing.most)),
        }
        self.tell_pace();
    }

    /// Learns from the step that has just been computed and is not noted in its sequences yet.
    pub(crate) fn pace(&mut self, began: Duration, now: Duration) {
        let took = now.saturating_sub(began);
        let (mut rows, mut streams, mut keys) = (0, 0, 0);
        for work in &self.plan.work {
            let sequence = &self.running[work.index];
            rows += work.all_rows() as u64;
            streams += u64::from(work.rows == 1 && !sequence.is_reading());
            keys += attended(sequence.computed(), work.all_rows());
        }
        if (rows == 0 && self.seen.tokens == 0) || self.faulty {
            return;
        }
        let decoding = took.saturating_sub(self.seen.took);
        let step = Step {
            at_us: micros(now),
            took_us: micros(decoding),
            decode: streams,
            prompt: rows - streams,
            attended: keys,
            vision: self.seen.tokens as u64,
            vision_us: micros(self.seen.took),
        };
        self.record(|| Entry::Step(step));
        if rows == 0 {
            return;
        }
        self.step_time.observe(rows as usize, decoding.as_secs_f64());
        self.observe_seeing(streams, decoding.as_secs_f64());
        if self.plan.work.len() == streams as usize {
            self.sampled_time.observe(rows as usize, decoding.as_secs_f64());
        }
        self.tier.iter_mut().for_each(|tier| tier.observe(rows - streams, streams, took));
        if streams > 0
            && let Some(pid) = &mut self.pacing.pid
        {
            pid.observe(step.prompt as usize + self.seen.tokens, took);
        }
        self.tell_pace();
    }

    fn tell_pace(&self) {
        let meters = &self.shared.meters;
        let pid = self.pacing.pid.as_ref();
        meters.pid_setpoint.store(pid.map_or(0.0, |pid| pid.target().as_secs_f64()).to_bits(), Relaxed);
        meters.pid_error.store(pid.map_or(0.0, Pid::error).to_bits(), Relaxed);
        meters.pid_output.store(pid.map_or(self.pacing.most, Pid::tokens) as u64, Relaxed);
    }

    /// Counts what a request that had started has taken of the engine's time, now that it goes.
    pub(crate) fn let_go(&mut self, request: &Request) {
        self.line.charge(request);
        if let Some(gallery) = self.gallery.as_mut().filter(|_| request.feature_bytes > 0) {
            gallery.leave(request.order, request.feature_bytes);
        }
        let now = self.shared.clock.now();
        self.record(|| request.trace_end(now));
    }

    /// Takes something down, where that is wanted.
    pub(crate) fn record(&self, entry: impl FnOnce() -> Entry) {
        if let Some(recorder) = &self.recorder {
            recorder.record(entry());
        }
    }
}
