//! Tasks that wait in a line, each with what it waits for. Any of them may leave from where it stands.

use std::task::Waker;

use slab::Slab;

/// One task.
struct Waiter<P> {
    what: P,
    waker: Waker,
    place: Place,
}

/// Where a task stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    InLine {
        before: Option<usize>,
        behind: Option<usize>,
    },
    /// Known, but not in the line: served, called or told to come back later.
    Aside,
}

/// A line of tasks. Joining, leaving and calling the first take constant time.
pub(super) struct Waiters<P> {
    known: Slab<Waiter<P>>,
    first: Option<usize>,
    last: Option<usize>,
}

impl<P> Waiters<P> {
    pub(super) fn new() -> Self {
        Self { known: Slab::new(), first: None, last: None }
    }

    /// A new task at the end of the line; the answer names it from now on.
    pub(super) fn join(&mut self, what: P, waker: &Waker) -> usize {
        let waiter = Waiter { what, waker: waker.clone(), place: Place::Aside };
        let name = self.known.insert(waiter);
        self.rejoin_last(name);
        name
    }

    pub(super) fn first(&self) -> Option<usize> {
        self.first
    }

    pub(super) fn is_in_line(&self, name: usize) -> bool {
        self.known[name].place != Place::Aside
    }

    pub(super) fn what(&mut self, name: usize) -> &mut P {
        &mut self.known[name].what
    }

    /// Whom to wake, if the task has moved since it last looked.
    pub(super) fn listen(&mut self, name: usize, waker: &Waker) {
        self.known[name].waker.clone_from(waker);
    }

    /// The waker of a task that keeps its name.
    pub(super) fn waker(&self, name: usize) -> Waker {
        self.known[name].waker.clone()
    }

    /// Takes a task out of the line; it keeps its name.
    pub(super) fn step_aside(&mut self, name: usize) {
        if let Place::InLine { before, behind } = self.known[name].place {
            self.link(before, behind);
            self.known[name].place = Place::Aside;
        }
    }

    /// Puts a task that stands aside at the end of the line.
    pub(super) fn rejoin_last(&mut self, name: usize) {
        let before = self.last;
        self.insert(name, before, None);
    }

    /// Puts a task that stands aside at the head of the line.
    pub(super) fn rejoin_first(&mut self, name: usize) {
        let behind = self.first;
        self.insert(name, None, behind);
    }

    /// Forgets a task.
    pub(super) fn leave(&mut self, name: usize) -> P {
        self.step_aside(name);
        self.known.remove(name).what
    }

    /// How many tasks are known, in the line or aside.
    #[cfg(test)]
    pub(super) fn known(&self) -> usize {
        self.known.len()
    }

    fn insert(&mut self, name: usize, before: Option<usize>, behind: Option<usize>) {
        self.link(before, Some(name));
        self.link(Some(name), behind);
        self.known[name].place = Place::InLine { before, behind };
    }

    /// Makes two neighbours in the line, or one of them its end.
    fn link(&mut self, front: Option<usize>, back: Option<usize>) {
        match front {
            Some(front) => {
                if let Place::InLine { behind, .. } = &mut self.known[front].place {
                    *behind = back;
                }
            }
            None => self.first = back,
        }
        match back {
            Some(back) => {
                if let Place::InLine { before, .. } = &mut self.known[back].place {
                    *before = front;
                }
            }
            None => self.last = front,
        }
    }
}
