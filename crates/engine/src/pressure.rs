//! What is given up while memory is short, in an order, and taken back when there is enough again.
//!
//! What can be had again goes before work waits: kept answers, then features of pictures, then keys and values that nobody
//! uses, then models that nobody asks for (`router/members/sleep.rs`); only then are requests let in one at a time, and at last
//! none while others run. What runs is never given up: it has its memory already. How short memory is, is judged by marks with a margin (`flow`), so nothing trembles; each reading
//! goes one step further or, after some calm ones, one step back.

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flow::scheduler::{Pressure, Reading, Watermarks};
use futures::FutureExt;
use futures::future::BoxFuture;
use protocol::status::{Health, PressureStatus};
use protocol::{
    Adjustment, EmbedRequest, Embeddings, GenerateRequest, Generation, Inference, ModelCard, Refusal, Relief,
    ScoreRequest, Scores, Status, Unserved,
};

use crate::run_loop::RunLoop;
use crate::vision::gallery::Gallery;

/// So many readings without pressure take one step back: a second at four readings a second.
const CALM: u32 = 4;

/// Decides what is given up. Pure: it is told readings and answers.
#[derive(Clone, Debug)]
struct Judge {
    marks: Watermarks,
    pressure: Pressure,
    relief: Relief,
    calm: u32,
    last: Reading,
    /// How often something was given up.
    raised: u64,
}

impl Judge {
    fn new(marks: Watermarks) -> Self {
        let (pressure, relief, last) = (Pressure::default(), Relief::default(), Reading::default());
        Self { marks, pressure, relief, calm: 0, last, raised: 0 }
    }

    /// What is given up after a reading.
    fn observe(&mut self, reading: Reading) -> Relief {
        self.pressure = self.marks.judge(self.pressure, reading);
        self.last = reading;
        let before = self.relief;
        let most = match self.pressure {
            Pressure::None => return self.calm_down(),
            Pressure::Soft => Relief::Slower,
            Pressure::Hard => Relief::Hold,
        };
        self.calm = 0;
        self.relief = before.next().min(most);
        self.raised += u64::from(self.relief > before);
        self.relief
    }

    fn calm_down(&mut self) -> Relief {
        self.calm += 1;
        if self.calm >= CALM {
            self.calm = 0;
            self.relief = self.relief.before();
        }
        self.relief
    }
}

/// What an engine gives up.
#[derive(Debug, Default)]
pub(crate) struct Easing {
    relief: Relief,
    /// Requests that may start until the next reading, where they start one by one.
    starts: usize,
    /// Whether keys and values that nobody uses are to go as soon as the model does not run.
    due: bool,
}

impl Easing {
    /// A request has started.
    pub(crate) fn started(&mut self) {
        self.starts = self.starts.saturating_sub(1);
    }
}

impl RunLoop {
    /// Gives up so much; again after every reading, because what runs leaves behind what nobody needs.
    pub(crate) fn ease(&mut self, relief: Relief) {
        let before = std::mem::replace(&mut self.easing, Easing { relief, starts: 1, due: false }).relief;
        if relief >= Relief::Pictures {
            self.gallery.iter_mut().for_each(Gallery::empty);
        }
        let holds = self.pages.pool().idle() > 0 || before < Relief::Prefixes;
        self.easing.due = relief >= Relief::Prefixes && holds;
        self.shed();
    }

    /// Lets keys and values go that nobody uses, if that is due and the model does not run.
    pub(crate) fn shed(&mut self) {
        if self.compute.is_running() || !std::mem::take(&mut self.easing.due) {
            return;
        }
        self.pages.forget_idle();
        // What is to go to the disk is copied before its memory goes.
        self.spill();
        self.compute.forget(self.pages.pool().free());
    }

    /// Whether memory allows another request to start. One may always, where none runs: so all of them come to their end.
    pub(crate) fn may_start(&self) -> bool {
        let is_alone = self.running.is_empty();
        match self.easing.relief {
            Relief::Hold => is_alone,
            Relief::Slower => is_alone || self.easing.starts > 0,
            _ => true,
        }
    }
}

/// Inference that gives up what can be had again while memory is short. It is told readings by whoever has a clock.
pub struct Eased {
    inner: Arc<dyn Inference>,
    judge: Mutex<Judge>,
}

impl Eased {
    /// Eases `inner`, from these marks on.
    pub fn new(inner: Arc<dyn Inference>, marks: Watermarks) -> Self {
        Self { inner, judge: Mutex::new(Judge::new(marks)) }
    }

    /// Takes a reading, and gives something up or takes it back.
    pub async fn observe(&self, reading: Reading) {
        let (before, relief) = {
            let mut judge = self.judge();
            (judge.relief, judge.observe(reading))
        };
        if relief != before {
            let (used, stalled) = (reading.used, reading.stalled);
            tracing::info!(used, stalled, given_up = %relief, "memory");
        }
        if relief != before || relief > Relief::None {
            // Encoders have nothing to give up, and say so.
            let _ = self.inner.adjust(Adjustment::Relief(relief)).await;
        }
    }

    fn judge(&self) -> MutexGuard<'_, Judge> {
        self.judge.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inference for Eased {
    fn models(&self) -> Vec<ModelCard> {
        self.inner.models()
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<Generation, Refusal>> {
        self.inner.generate(request)
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, Unserved>> {
        self.inner.embed(request)
    }

    fn score(&self, request: ScoreRequest) -> BoxFuture<'_, Result<Scores, Unserved>> {
        self.inner.score(request)
    }

    fn status(&self) -> Status {
        let mut status = self.inner.status();
        let judge = self.judge();
        let Reading { used, stalled } = judge.last;
        let (threshold, relief, raised) = (judge.marks.soft, judge.relief, judge.raised);
        status.pressure = PressureStatus { relief, used, stalled, threshold, raised };
        if relief > Relief::None {
            let reason = format!("memory is short ({:.0} % used): {relief}", used * 100.0);
            status.health = match status.health {
                Health::Healthy => Health::Degraded(vec![reason]),
                Health::Degraded(reasons) => Health::Degraded([reasons, vec![reason]].concat()),
                Health::Unhealthy(reasons) => Health::Unhealthy([reasons, vec![reason]].concat()),
            };
        }
        status
    }

    fn adjust(&self, adjustment: Adjustment) -> BoxFuture<'_, Result<(), Refusal>> {
        self.inner.adjust(adjustment)
    }

    fn drain(&self) -> BoxFuture<'_, ()> {
        self.inner.drain().boxed()
    }
}
