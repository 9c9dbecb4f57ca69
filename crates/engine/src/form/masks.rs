//! Masks are computed while the model computes.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::guide::{Guide, Stride};

/// A guide that wants to know what may come next, of which running sequence.
type Looking = (usize, Guide, Stride);

/// The same with what came of looking.
type Looked = (usize, Guide, Result<(), String>);

/// A thread that looks where guides can go. It starts with the first guide and ends with this.
#[derive(Default)]
pub(crate) struct Masks {
    thread: Option<(Sender<Looking>, Receiver<Looked>)>,
    away: usize,
    /// What was looked after here, because there is no thread for it.
    here: Vec<Looked>,
}

impl Masks {
    /// Gives a guide away to be looked after.
    pub(crate) fn begin(&mut self, index: usize, (guide, stride): (Guide, Stride)) {
        if self.thread.is_none() {
            self.thread = start();
        }
        let sent = match &self.thread {
            Some((jobs, _)) => jobs.send((index, guide, stride)).map_err(|unsent| unsent.0),
            None => Err((index, guide, stride)),
        };
        match sent {
            Ok(()) => self.away += 1,
            Err(looking) => self.here.push(look(looking)),
        }
    }

    /// Gives back every guide that was given away, and what there was to say.
    pub(crate) fn collect(&mut self, mut back: impl FnMut(usize, Guide, Result<(), String>)) {
        let away = std::mem::take(&mut self.away);
        let looked = self.thread.iter().flat_map(|(_, looked)| looked.iter().take(away));
        for (index, guide, outcome) in looked.chain(self.here.drain(..)) {
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
