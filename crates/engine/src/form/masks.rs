//! Masks are computed while the model computes, or, where that is soon done, right after it.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::guide::{Guide, Stride};

/// A model that is done sooner keeps all processors busy until then, and a thread that takes one of them from it holds up
/// the others, too. Behind such a model a mask costs what it costs and no more.
const SHORT: Duration = Duration::from_millis(2);

/// A guide that wants to know what may come next, of which running sequence.
type Looking = (usize, Guide, Stride);

/// The same with what came of looking.
type Looked = (usize, Guide, Result<(), String>);

/// Looks where guides can go, beside a model with a thread of its own. That starts when it is needed first and ends with
/// this.
#[derive(Default)]
pub(crate) struct Masks {
    thread: Option<(Sender<Looking>, Receiver<Looked>)>,
    /// How many the thread has.
    away: usize,
    /// What is looked after behind the model.
    here: Vec<Looking>,
    /// When the first of these was given away.
    began: Option<Instant>,
    /// Whether the model was not soon done the last time.
    beside: bool,
}

impl Masks {
    /// Gives a guide away to be looked after.
    pub(crate) fn begin(&mut self, index: usize, (guide, stride): (Guide, Stride)) {
        self.began.get_or_insert_with(Instant::now);
        if self.beside && self.thread.is_none() {
            self.thread = start();
        }
        let looking = (index, guide, stride);
        let sent = match &self.thread {
            Some((jobs, _)) if self.beside => jobs.send(looking).map_err(|unsent| unsent.0),
            _ => Err(looking),
        };
        match sent {
            Ok(()) => self.away += 1,
            Err(looking) => self.here.push(looking),
        }
    }

    /// Gives back every guide that was given away, and what there was to say. The model is done.
    pub(crate) fn collect(&mut self, mut back: impl FnMut(usize, Guide, Result<(), String>)) {
        let Some(began) = self.began.take() else { return };
        self.beside = began.elapsed() >= SHORT;
        let away = std::mem::take(&mut self.away);
        let looked = self.thread.iter().flat_map(|(_, looked)| looked.iter().take(away));
        for (index, guide, outcome) in self.here.drain(..).map(look).chain(looked) {
            back(index, guide, outcome);
        }
    }
}

fn look((index, mut guide, stride): Looking) -> Looked {
    // The library turns its own panics into errors.
    let outcome = guide.look(stride);
    (index, guide, outcome)
}

fn start() -> Option<(Sender<Looking>, Receiver<Looked>)> {
    let (jobs, inbox) = channel::<Looking>();
    let (outbox, looked) = channel();
    let work = move || {
        for looking in inbox {
            if outbox.send(look(looking)).is_err() {
                return;
            }
        }
    };
    let started = std::thread::Builder::new().name("tidegate-masks".to_owned()).spawn(work);
    started.is_ok().then_some((jobs, looked))
}

#[cfg(test)]
mod tests {
    use protocol::Form;

    use super::super::guide::tests::template;
    use super::*;

    #[test]
    fn every_guide_comes_back_with_its_mask_beside_a_model_and_behind_it() {
        let template = template(&Form::Regex("[a-f]{3}".to_owned()));
        let mut alone = template.guide();
        alone.look(Stride::Step).unwrap();
        let mut masks = Masks::default();
        for round in 0..40 {
            masks.beside = round % 2 == 0;
            let count = round % 7;
            (0..count).for_each(|index| masks.begin(index, (template.guide(), Stride::Step)));
            let mut back = Vec::new();
            masks.collect(|index, guide, outcome| {
                assert_eq!((guide.allowed(), outcome), (alone.allowed(), Ok(())));
                back.push(index);
            });
            assert_eq!(back, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_model_that_takes_long_is_not_waited_for() {
        let template = template(&Form::JsonObject);
        let mut masks = Masks::default();
        let mut step = |model: Duration| {
            masks.begin(0, (template.guide(), Stride::Step));
            let away = masks.away;
            std::thread::sleep(model);
            masks.collect(|_, guide, _| assert!(guide.allowed().is_some()));
            away
        };
        assert_eq!([step(SHORT), step(SHORT)], [0, 1]);
    }
}
