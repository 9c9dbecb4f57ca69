//! The least that two sides can exchange: numbers in order of arrival, at most `slots` of them.

use std::collections::VecDeque;

use super::moment::Moment;
use super::stock::{Progress, Stock};

pub(super) struct Numbers {
    pub(super) slots: usize,
    pub(super) held: VecDeque<u32>,
}

/// A number on its way in; `None` once it is in.
pub(super) type Offer = Option<u32>;

impl Stock for Numbers {
    type Offer = Offer;
    type Want = Option<u32>;
    type Aftermath = ();

    fn advance(&mut self, _now: Moment) {}

    fn accept(&mut self, offer: &mut Offer) -> Progress {
        if self.held.len() >= self.slots {
            return Progress::Blocked;
        }
        self.held.extend(offer.take());
        Progress::Finished
    }

    fn turn_away(&mut self, _offer: &mut Offer) {}

    fn abandon(&mut self, offer: Offer) -> Option<Offer> {
        Some(offer)
    }

    fn fill(&mut self, want: &mut Option<u32>) -> bool {
        *want = self.held.pop_front();
        want.is_some()
    }

    fn appetite(_want: &Option<u32>) -> u32 {
        1
    }

    fn on_hand(&self) -> u64 {
        self.held.len() as u64
    }

    fn due(&self) -> Moment {
        Moment::NEVER
    }

    fn is_exact(&self) -> bool {
        true
    }

    fn has_aftermath(&self) -> bool {
        false
    }

    fn aftermath(&mut self) -> Option<()> {
        None
    }
}
