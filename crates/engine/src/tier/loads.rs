//! Pages on their way between the engine's memory and the tier.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use memory::ladder::Raised;
use tensor::PAGE_TOKENS;

use super::{Fetch, Tier, note};
use crate::parameters::Parameters;
use crate::run_loop::RunLoop;

/// Pages of a prompt that are asked for at once; the others follow as these come.
const WINDOW: usize = 6;

impl RunLoop {
    /// Begins to read the pages with which a prompt goes on behind those in memory, if that is faster than computing them.
    pub(crate) fn seek(&mut self, order: u64, parameters: &Arc<Parameters>) {
        let Some(tier) = &mut self.tier else { return };
        let (scope, keys) = (&parameters.scope, parameters.keys());
        // The last token is computed in any case.
        let tokens = &keys[..keys.len().min(parameters.prompt.len() - 1)];
        let mut held = 0;
        let last = self.pages.prefix(scope, tokens).inspect(|_| held += 1).last();
        let mut before = last.and_then(|page| self.pages.name(page));
        if before.is_none() && last.is_some() {
            return;
        }
        let room = self.pages.pool().available();
        let mut keys = VecDeque::new();
        for tokens in tokens.chunks_exact(PAGE_TOKENS).skip(held).take(room) {
            before = tier.digests.name(scope, before, tokens);
            let Some(key) = before.filter(|key| tier.ladder.contains(*key)) else { break };
            keys.push_back(key);
        }
        let (rates, page_bytes) = (tier.rates(), self.compute.page_bytes());
        if keys.is_empty() || !rates.favour_loading(keys.len(), page_bytes) {
            self.shared.meters.tier_declined.fetch_add(keys.len() as u64, Relaxed);
            return;
        }
        let patience = rates.patience(keys.len(), page_bytes).max(tier.patience);
        let until = self.shared.clock.now().saturating_add(patience);
        let parameters = Arc::clone(parameters);
        let names = keys.iter().copied().collect();
        let mut fetch = Fetch { order, parameters, next: held, keys, names, raises: VecDeque::new(), until };
        fetch.ask(tier);
        tier.fetches.push(fetch);
        // What is in memory of this beginning is needed again now.
        for page in self.pages.prefix(scope, tokens).collect::<Vec<_>>() {
            self.pages.share(page);
            self.pages.release(page);
        }
    }

    /// Puts the pages that have come in their places.
    pub(crate) fn land(&mut self, now: Duration) {
        let Some(tier) = &mut self.tier else { return };
        for mut fetch in std::mem::take(&mut tier.fetches) {
            if self.land_next(&mut fetch, now)
                && let Some(tier) = &mut self.tier
            {
                tier.fetches.push(fetch);
            }
        }
    }

    /// Puts the pages of one prompt in their places; false when no more are to come.
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
        let (scope, prompt) = (&fetch.parameters.scope, fetch.parameters.keys());
        let start = fetch.next * PAGE_TOKENS;
        let tokens = &prompt[start..start + PAGE_TOKENS];
        let before = match start {
            0 => None,
            _ => Some(self.pages.prefix(scope, &prompt[..start]).nth(fetch.next - 1)?),
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
            if tier.writes.wanted() && !tier.ladder.contains(leaving.key) {
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
        tier.fetches.clear();
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

    /// Whether the head of the line waits for its pages.
    pub(crate) fn head_is_loading(&mut self, now: Duration) -> bool {
        let Some(tier) = self.tier.as_ref().filter(|tier| tier.is_busy()) else { return false };
        self.line.head(now).is_some_and(|request| tier.is_loading(request.order))
    }

    /// Whether all that there is to do is to wait for pages.
    pub(crate) fn only_waits_for_pages(&self) -> bool {
        let is_idle = self.running.is_empty() && self.lobby.is_empty() && !self.looks();
        is_idle && self.tier.as_ref().is_some_and(Tier::is_busy)
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
