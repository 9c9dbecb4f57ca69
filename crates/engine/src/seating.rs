//! Who runs and who waits: moving sequences between the line, the lobby and the batch, and which pages they share.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use models::vision::Features;
use protocol::Failure;
use tensor::PAGE_TOKENS;

use crate::plan::{Head, Rank};
use crate::prefix::Scope;
use crate::request::Request;
use crate::run_loop::RunLoop;
use crate::sequence::Sequence;

/// Where the sequence that runs next comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// It ran before, or its request has started.
    Lobby,
    /// It is the first of a request that waits.
    Line,
}

impl RunLoop {
    /// The lobby goes before the line, unless the line's head is more urgent.
    fn source(&mut self, now: Duration) -> Option<Source> {
        // A head whose pictures find no room lets the lobby go first: from there the room comes back.
        let head = self.line.head(now).filter(|request| request.pictures.is_empty());
        match (self.lobby.first(), head) {
            (None, None) => None,
            (Some(sequence), Some(request)) if sequence.rank.band <= request.band() => Some(Source::Lobby),
            (Some(_), None) => Some(Source::Lobby),
            (_, Some(_)) => Some(Source::Line),
        }
    }

    /// The rank of what would run next.
    pub(crate) fn next_rank(&mut self, now: Duration) -> Option<Rank> {
        match self.source(now)? {
            Source::Lobby => Some(self.lobby.first()?.rank),
            Source::Line => self.line.head(now).map(Request::first_rank),
        }
    }

    /// What it begins with, as far as that can be shared, and with whom. The last token is computed in any case.
    pub(crate) fn next_tokens(&mut self, now: Duration) -> Option<(Arc<Scope>, Box<[u32]>)> {
        let (scope, keys, known) = match self.source(now)? {
            Source::Lobby => {
                let sequence = self.lobby.first()?;
                (sequence.scope(), sequence.wanted_keys(), sequence.known())
            }
            Source::Line => {
                let parameters = &self.line.head(now)?.parameters;
                (&parameters.scope, parameters.keys(), parameters.prompt.len())
            }
        };
        Some((Arc::clone(scope), keys[..keys.len().min(known - 1)].into()))
    }

    /// What would run next.
    pub(crate) fn head(&mut self, now: Duration) -> Option<Head> {
        let (band, scope, (keys, known)) = match self.source(now)? {
            Source::Lobby => {
                let sequence = self.lobby.first()?;
                (sequence.rank.band, sequence.scope(), (sequence.wanted_keys(), sequence.known()))
            }
            Source::Line => {
                let request = self.line.head(now)?;
                let parameters = &request.parameters;
                (request.band(), &parameters.scope, (parameters.keys(), parameters.prompt.len()))
            }
        };
        let lesser = self.running.partition_point(|sequence| sequence.rank.band <= band);
        let mut head = Head { band, known, lent_pages: 0, lent_by_peers: 0 };
        // The last token is computed in any case.
        for (index, page) in self.pages.prefix(scope, &keys[..keys.len().min(known - 1)]).enumerate() {
            let holds = |sequence: &&Sequence| sequence.pages().get(index) == Some(&page);
            let owners = self.pages.pool().owners(page) as usize;
            head.lent_pages += usize::from(owners > 0);
            head.lent_by_peers += usize::from(owners > self.running[lesser..].iter().filter(holds).count());
        }
        Some(head)
    }

    /// Why a request that waits cannot meet its deadline any more, though it has not passed: the engine cannot even read
    /// its prompt until then.
    pub(crate) fn out_of_reach(&self, request: &Request, now: Duration) -> Option<Failure> {
        let left = request.deadline()?.saturating_sub(now);
        let (prompt, keys) = (&request.parameters.prompt, request.parameters.keys());
        let held = self.pages.prefix(&request.parameters.scope, keys).count() * PAGE_TOKENS;
        let needs = self.step_time.least(prompt.len().saturating_sub(held))?;
        (needs > left).then_some(Failure::DeadlineOutOfReach { needs })
    }

    /// Lets the head run, unless it turns out to have come too late.
    pub(crate) fn start_next(&mut self, now: Duration) {
        let mut sequence = if self.source(now) == Some(Source::Line)
            && let Some(mut request) = self.line.pop(now)
        {
            if let Some(failure) = self.out_of_reach(&request, now) {
                self.report(request, failure);
                return;
            }
            let rank = self.note_start(&mut request, now);
            let sequence = Sequence::new(rank, request.parameters.clone());
            self.requests.insert(request.order, request);
            sequence
        } else if !self.lobby.is_empty() {
            self.lobby.remove(0)
        } else {
            return;
        };
        self.adopt(&mut sequence);
        self.tier.iter_mut().for_each(|tier| tier.forget(sequence.rank));
        insert_by_rank(&mut self.running, sequence);
    }

    /// Notes that a request leaves the line.
    fn note_start(&self, request: &mut Request, now: Duration) -> Rank {
        let meters = &self.shared.meters;
        meters.queue.observe(request.start(now));
        if request.parameters.shares_prefix() {
            let tokens = request.parameters.prompt.len() as u64;
            meters.prefix_queries.fetch_add(tokens, Relaxed);
        }
        request.first_rank()
    }

    /// Lets requests with pictures leave the line while there is room for what the tower makes of them.
    pub(crate) fn enter(&mut self, now: Duration) {
        while let Some(gallery) = &self.gallery
            && let Some(head) = self.line.head(now).filter(|request| !request.pictures.is_empty())
        {
            let need = gallery.need(head.pictures.iter().map(|picture| picture.grid));
            if !gallery.has_room(need) {
                return;
            }
            let Some(mut request) = self.line.pop(now) else { return };
            if let Some(failure) = self.out_of_reach(&request, now) {
                self.report(request, failure);
                continue;
            }
            let rank = self.note_start(&mut request, now);
            let pictures = std::mem::take(&mut request.pictures);
            request.feature_bytes = need;
            let scope = Arc::clone(&request.parameters.scope);
            self.requests.insert(request.order, request);
            let entered = self.gallery.as_mut().map(|gallery| gallery.enter((rank, need), &scope, pictures));
            let Some((features, seen)) = entered else { return };
            if let Some(request) = self.requests.get_mut(&rank.order) {
                request.seen = seen;
            }
            if let Some(features) = features {
                self.seat_seeing(rank, features);
            }
        }
    }

    /// Seats the first choice of a request, all of whose pictures have been seen.
    pub(crate) fn seat_seeing(&mut self, rank: Rank, features: Vec<Arc<Features>>) {
        let now = self.shared.clock.now();
        let Some(request) = self.requests.get_mut(&rank.order) else { return };
        request.seen_at = Some(now);
        request.features = features.into();
        let sequence = Sequence::new(rank, request.parameters.clone()).seeing(&request.features);
        insert_by_rank(&mut self.lobby, sequence);
    }

    /// Lets everyone who reads share what others have computed by now.
    pub(crate) fn catch_up(&mut self) {
        let mut running = std::mem::take(&mut self.running);
        running.iter_mut().for_each(|sequence| self.adopt(sequence));
        self.running = running;
    }

    /// Shares the pages of the sequence's next tokens. They are news for its client the first time that its prompt is
    /// read; what was preempted may find again what it computed itself.
    fn adopt(&mut self, sequence: &mut Sequence) {
        let found = sequence.adopt(&mut self.pages);
        if found > 0
            && (sequence.rank.choice, sequence.preemptions) == (0, 0)
            && let Some(request) = self.requests.get_mut(&sequence.rank.order)
            && request.parameters.shares_prefix()
        {
            request.cached += found;
            self.shared.meters.prefix_hits.fetch_add(found as u64, Relaxed);
        }
    }

    /// Takes the pages of all running sequences from `index` on; they keep their tokens and their place.
    pub(crate) fn preempt_from(&mut self, index: usize) {
        for mut sequence in self.running.drain(index..).rev() {
            sequence.pages().iter().for_each(|page| self.pages.note_due(*page));
            sequence.release(&mut self.pages);
            sequence.preemptions += 1;
            self.shared.meters.preemptions.fetch_add(1, Relaxed);
            insert_by_rank(&mut self.lobby, sequence);
        }
    }

    /// Lets the other choices of a request follow its first one, whose pages now hold their prompt.
    pub(crate) fn fork(&mut self, first: Rank) {
        let Some(request) = self.requests.get(&first.order) else { return };
        for choice in 1..request.parameters.choices {
            let sequence = Sequence::new(Rank { choice, ..first }, request.parameters.clone());
            let sequence = sequence.seeing(&request.features);
            insert_by_rank(&mut self.lobby, sequence);
        }
    }

    /// Describes the running sequences to the plan. A page comes free with the first of those that share it, since
    /// that is the last one to give way.
    pub(crate) fn count_slots(&mut self) {
        let Self { running, slots, holders, pages, .. } = self;
        slots.clear();
        slots.extend(running.iter().map(Sequence::slot));
        for (sequence, slot) in running.iter().zip(slots).rev() {
            for &page in sequence.pages() {
                let holders = &mut holders[page as usize];
                *holders += 1;
                slot.own_pages += usize::from(*holders == pages.pool().owners(page));
            }
        }
        for page in running.iter().flat_map(Sequence::pages) {
            holders[*page as usize] = 0;
        }
    }
}

/// Inserts a sequence at its place by rank.
fn insert_by_rank(sequences: &mut Vec<Sequence>, sequence: Sequence) {
    let at = sequences.partition_point(|other| other.rank < sequence.rank);
    sequences.insert(at, sequence);
}
