//! Pages on their way between the engine's memory and the tier.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use memory::Key;
use memory::ladder::Raised;
use tensor::PAGE_TOKENS;

use super::{Fetch, Tier, note};
use crate::parameters::Parameters;
use crate::plan::Rank;
use crate::prefix::Scope;
use crate::run_loop::RunLoop;

/// Pages of a prompt that are asked for at once; the others follow as these come.
const WINDOW: usize = 6;

impl RunLoop {
    /// Has the disk read ahead what a new request goes on with, as far as there are buffers.
    pub(crate) fn foresee_pages(&self, parameters: &Parameters) {
        let Some(tier) = &self.tier else { return };
        let keys = parameters.keys();
        let tokens = &keys[..keys.len().min(parameters.prompt.len() - 1)];
        let names = self.names_below(tier, &parameters.scope, tokens).1;
        if tier.rates().favour_loading(names.len(), self.compute.page_bytes()) {
            tier.ladder.prefetch(names);
        }
    }

    /// How many pages of `tokens` are in memory, and the names of those below with which they go on, as far as there is room.
    fn names_below(&self, tier: &Tier, scope: &Arc<Scope>, tokens: &[u32]) -> (usize, Vec<Key>) {
        let mut held = 0;
        let last = self.pages.prefix(scope, tokens).inspect(|_| held += 1).last();
        let name = last.and_then(|page| self.pages.name(page));
        if name.is_none() && last.is_some() {
            return (held, Vec::new());
        }
        let mut names = tier.continuation(scope, tokens, (held, name));
        names.truncate(self.pages.pool().available());
        (held, names)
    }

    /// Begins to read the pages with which the sequence that is to run next goes on behind those in memory, if that is faster
    /// than computing them and was not tried yet. Whether pages are on their way now.
    pub(crate) fn seek(&mut self, now: Duration) -> bool {
        if self.tier.is_none() {
            return false;
        }
        let Some(rank) = self.next_rank(now) else { return false };
        if self.tier.as_ref().is_none_or(|tier| tier.sought == Some(rank)) {
            return false;
        }
        let Some((scope, tokens)) = self.next_tokens(now) else { return false };
        let fetch = self.fetch(rank, (scope, tokens));
        let Some(tier) = &mut self.tier else { return false };
        tier.sought = Some(rank);
        tier.fetch = fetch;
        tier.fetch.is_some()
    }

    fn fetch(&mut self, rank: Rank, (scope, tokens): (Arc<Scope>, Box<[u32]>)) -> Option<Fetch> {
        let tier = self.tier.as_ref()?;
        let (held, names) = self.names_below(tier, &scope, &tokens);
        let (rates, page_bytes) = (tier.rates(), self.compute.page_bytes());
        if names.is_empty() || !rates.favour_loading(names.len(), page_bytes) {
            self.shared.meters.tier_declined.fetch_add(names.len() as u64, Relaxed);
            return None;
        }
        let patience = rates.patience(names.len(), page_bytes).max(tier.patience);
        let until = self.shared.clock.now().saturating_add(patience);
        let keys = names.iter().copied().collect();
        let mut fetch =
            Fetch { rank, scope, tokens, next: held, keys, names, raises: VecDeque::new(), until };
        fetch.ask(tier);
        // What is in memory of this beginning is needed again now.
        for page in self.pages.prefix(&fetch.scope, &fetch.tokens).collect::<Vec<_>>() {
            self.pages.share(page);
            self.pages.release(page);
        }
        Some(fetch)
    }

    /// Puts the pages that have come in their places.
    pub(crate) fn land(&mut self, now: Duration) {
        let Some(mut fetch) = self.tier.as_mut().and_then(|tier| tier.fetch.take()) else { return };
        if self.land_next(&mut fetch, now)
            && let Some(tier) = &mut self.tier
        {
            tier.fetch = Some(fetch);
        }
    }

    /// Puts the pages of one sequence in their places; false when no more are to come.
    fn land_next(&mut self, fetch: &mut Fetch, now: Duration) -> bool {
        loop {
            match fetch.poll() {
                Poll::Pending => return now < fetch.until,
                Poll::Ready(Some(Ok(blob))) => {
                    if self.place(fetch, &blob.note, &blob.bytes).is_none() {
                        return false;
                    }
                    fetch.next += 1;
                    self.tier.iter_mut().for_each(|tier| {
                        tier.writes.found();
                        fetch.ask(tier);
                    });
                    self.shared.meters.tier_loaded.fetch_add(1, Relaxed);
                }
                Poll::Ready(Some(Err(error))) => {
                    tracing::warn!(%error, "a page of keys and values is computed again");
                    return false;
                }
                Poll::Ready(None) => {
                    // Beginnings are of use to more, so they count as needed last.
                    let names = fetch.names.iter().rev().copied();
                    self.tier.iter().for_each(|tier| tier.ladder.touch(names.clone()));
                    return false;
                }
            }
        }
    }

    /// Copies a page into memory and makes it findable; `None` if it is another one, what stands before it has gone, or
    /// there is no room.
    fn place(&mut self, fetch: &Fetch, noted: &[u8], bytes: &[u8]) -> Option<memory::PageId> {
        let scope = &fetch.scope;
        let start = fetch.next * PAGE_TOKENS;
        let tokens = &fetch.tokens[start..start + PAGE_TOKENS];
        let before = match start {
            0 => None,
            _ => Some(self.pages.prefix(scope, &fetch.tokens[..start]).nth(fetch.next - 1)?),
        };
        if *noted != *note(tokens) || bytes.len() != self.compute.page_bytes() {
            return None;
        }
        if let Some(page) = self.pages.find(scope, before, tokens) {
            return Some(page);
        }
        let page = self.pages.allocate()?;
        self.spill();
        self.compute.page_mut(page)?.copy_from_slice(bytes);
        let page = self.pages.offer(scope, (before, page), tokens);
        self.pages.saved(page);
        self.pages.release(page);
        Some(page)
    }

    /// Writes down what has just left memory. Its pages are handed out anew and not written to yet: this comes between the
    /// last page that is handed out and the first byte that is computed.
    pub(crate) fn spill(&mut self) {
        let Some(tier) = &mut self.tier else { return };
        for leaving in self.pages.take_leaving() {
            // A page that a sequence goes on with is worth writing if it is worth reading.
            let is_wanted = match leaving.is_due {
                true => tier.rates().favour_loading(1, self.compute.page_bytes()),
                false => tier.writes.wanted(),
            };
            if is_wanted && !tier.ladder.contains(leaving.key) {
                let kept = self.compute.page(leaving.page).is_some_and(|bytes| tier.keep(&leaving, bytes));
                self.shared.meters.tier_written.fetch_add(u64::from(kept), Relaxed);
            }
        }
    }

    /// Writes down pages that are in memory alone, as far as there are buffers, and says whether there are more. This is
    /// for when there is nothing else to do.
    pub(crate) fn save(&mut self) -> bool {
        let Some(tier) = &mut self.tier else { return false };
        // Nobody waits for a page, and what was read for those who have gone holds buffers.
        tier.fetch = None;
        while let Some(leaving) = self.pages.next_unsaved() {
            if !tier.ladder.contains(leaving.key) {
                let Some(bytes) = self.compute.page(leaving.page) else { return false };
                if !tier.keep(&leaving, bytes) {
                    return true;
                }
                self.shared.meters.tier_written.fetch_add(1, Relaxed);
            }
            self.pages.saved(leaving.page);
        }
        false
    }

    /// Whether the sequence that is to run next waits for its pages. If another one is by now, that one has to wait no longer
    /// than it must: pages on their way for the first are given up.
    pub(crate) fn next_is_loading(&mut self, now: Duration) -> bool {
        let Some(rank) = self.tier.as_ref().and_then(|tier| tier.fetch.as_ref()).map(|fetch| fetch.rank)
        else {
            return false;
        };
        let is_next = self.next_rank(now) == Some(rank);
        if !is_next {
            self.tier.iter_mut().for_each(|tier| tier.forget(rank));
        }
        is_next
    }

    /// Whether all that there is to do is to wait for pages.
    pub(crate) fn only_waits_for_pages(&self) -> bool {
        let is_idle = self.running.is_empty() && !self.looks();
        is_idle && self.tier.as_ref().is_some_and(|tier| tier.fetch.is_some())
    }
}

impl Fetch {
    /// Asks for the next pages.
    fn ask(&mut self, tier: &Tier) {
        while self.raises.len() < WINDOW
            && let Some(key) = self.keys.pop_front()
        {
            self.raises.push_back(tier.ladder.get(key));
        }
    }

    /// The page that comes next, if it has come; `Ready(None)` if none does.
    fn poll(&mut self) -> Poll<Option<Raised>> {
        let Some(raise) = self.raises.front_mut() else { return Poll::Ready(None) };
        // The engine's thread looks again after its next step, so nobody has to wake it.
        let answer = Pin::new(raise).poll(&mut Context::from_waker(Waker::noop()));
        if answer.is_ready() {
            self.raises.pop_front();
        }
        answer.map(Some)
    }
}
