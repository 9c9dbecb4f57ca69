//! What the next step computes: pure functions of the sequences, the free pages and the budget.
//!
//! Running sequences come sorted by rank, the most urgent and oldest first. Every sequence that stays gets at least
//! one token, so nothing that runs can starve; the newest sequence of the least urgent band gives its pages back when
//! they run out, and is computed again later. Nothing here knows requests, models or time.

use protocol::Priority;

/// What a running sequence means to the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Urgency of its request.
    pub(crate) band: Priority,
    /// Tokens that are known: the prompt and what was sampled.
    pub(crate) known: usize,
    /// Tokens of these whose keys and values are in the pages; fewer than `known`.
    pub(crate) computed: usize,
    /// Pages it holds.
    pub(crate) pages: usize,
    /// Pages of these that come free with it, once all behind it have given theirs back.
    pub(crate) own_pages: usize,
    /// Whether there are pictures in its prompt.
    pub(crate) sees: bool,
}

/// What there is to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// Pages that nobody holds. Those that are kept for whoever needs their content again are among them.
    pub(crate) free_pages: usize,
    /// Tokens of a page.
    pub(crate) page_tokens: usize,
    /// The most tokens of one step; at least `sequences`.
    pub(crate) tokens: usize,
    /// The most tokens of those who see in one step, beside one for each.
    pub(crate) seeing: usize,
    /// The most sequences that run at once.
    pub(crate) sequences: usize,
}

/// The sequence that would run next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Urgency of its request.
    pub(crate) band: Priority,
    /// Tokens to compute before its next one can be sampled.
    pub(crate) known: usize,
    /// Pages that running sequences hold and that it will share.
    pub(crate) lent_pages: usize,
    /// Pages of these that are still held when all of lesser urgency have given way.
    pub(crate) lent_by_peers: usize,
}

/// Whether the head of the line may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// There is room for it.
    Admit,
    /// It waits for others to end.
    Wait,
    /// It is more urgent than the last running sequence, which gives way; ask again afterwards.
    PreemptLast,
}

/// Rows of one sequence in the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    /// Which running sequence.
    pub(crate) index: usize,
    /// How many of its tokens.
    pub(crate) rows: usize,
    /// How many tokens behind these are tried, though they are only expected.
    pub(crate) drafts: usize,
}

impl Work {
    /// Rows in all.
    pub(crate) fn all_rows(&self) -> usize {
        self.rows + self.drafts
    }
}

/// What the step does. Kept from step to step for its memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StepPlan {
    /// Rows by sequence, in rank order.
    pub(crate) work: Vec<Work>,
    /// Sequences from this index on give their pages back first.
    pub(crate) keep: usize,
}

/// Whether `head` may join the `running`: only if its whole text fits into pages that no running sequence has been
/// promised, with one page to spare for each of them to grow into.
pub(crate) fn admission(head: Head, running: &[Slot], room: Room) -> Admission {
    if fits(head, running, room, head.lent_pages) {
        return Admission::Admit;
    }
    let peers = running.partition_point(|slot| slot.band <= head.band);
    let (peers, lesser) = running.split_at(peers);
    let reclaimed: usize = lesser.iter().map(|slot| slot.own_pages).sum();
    if !lesser.is_empty() && fits(head, peers, room, reclaimed + head.lent_by_peers) {
        Admission::PreemptLast
    } else {
        Admission::Wait
    }
}

/// Whether there is a page for everyone's known tokens and one more, with `spare` pages beside the free ones.
fn fits(head: Head, running: &[Slot], room: Room, spare: usize) -> bool {
    let pages_of = |tokens: usize| tokens.div_ceil(room.page_tokens);
    let promised: usize = running.iter().map(|slot| pages_of(slot.known).saturating_sub(slot.pages)).sum();
    running.len() < room.sequences
        && pages_of(head.known) + promised + running.len() <= room.free_pages + spare
}

/// Decides the next step. Decoding sequences get their token first. Half of the budget left is shared evenly among
/// the sequences that still read, so that a short text does not wait for a long one, and the rest goes to the
/// oldest, so that texts read together do not all end late.
pub(crate) fn plan(running: &[Slot], room: Room, out: &mut StepPlan) {
    out.work.clear();
    let mut free = room.free_pages;
    out.keep = one_token_each(running, room, &mut free, &mut out.work);
    let (mut budget, mut seeing) = (room.tokens.saturating_sub(out.work.len()), room.seeing);
    let reading = out.work.iter().filter(|work| running[work.index].remaining() > 1).count();
    let share = budget.div_ceil(2 * reading.max(1));
    for limit in [share, usize::MAX] {
        for work in &mut out.work {
            let slot = running[work.index];
            let limit = if slot.sees { limit.min(seeing) } else { limit };
            let more = slot.remaining().saturating_sub(work.rows).min(limit).min(budget);
            let added = grow(work, slot, more, (room.page_tokens, &mut free));
            budget -= added;
            seeing -= if slot.sees { added } else { 0 };
        }
    }
}

/// Gives every sequence that can stay the page that its next token needs, and returns how many stay.
fn one_token_each(running: &[Slot], room: Room, free: &mut usize, work: &mut Vec<Work>) -> usize {
    let mut keep = running.len();
    let mut index = 0;
    while index < keep.min(room.tokens) {
        if running[index].computed == running[index].pages * room.page_tokens {
            while *free == 0 && keep > index {
                keep -= 1;
                *free += running[keep].own_pages;
            }
            if keep == index {
                break;
            }
            *free -= 1;
        }
        work.push(Work { index, rows: 1, drafts: 0 });
        index += 1;
    }
    keep
}

/// Adds up to `more` rows, as far as pages go, and returns how many.
fn grow(work: &mut Work, slot: Slot, more: usize, (page_tokens, free): (usize, &mut usize)) -> usize {
    let held = slot.pages.max((slot.computed + work.rows).div_ceil(page_tokens));
    let reach = (held + *free) * page_tokens - slot.computed;
    let rows = (work.rows + more).min(reach);
    *free -= (slot.computed + rows).div_ceil(page_tokens).saturating_sub(held);
    let added = rows - work.rows;
    work.rows = rows;
    added
}

impl Slot {
    fn remaining(&self) -> usize {
        self.known - self.computed
    }
}

/// The place of a sequence among all others: urgency, then the order of acceptance, then the choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// Urgency of its request.
    pub(crate) band: Priority,
    /// Its request was the how-manieth.
    pub(crate) order: u64,
    /// Which continuation of the request.
    pub(crate) choice: u32,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: usize = 4;

    fn slots() -> impl Strategy<Value = Vec<Slot>> {
        let slot = (0u8..3, 1usize..40, 0usize..40, 0usize..3, any::<bool>());
        let slot = slot.prop_map(|(band, known, computed, shared, sees)| {
            let computed = computed.min(known - 1);
            let pages = computed.div_ceil(PAGE);
            let band = [Priority::High, Priority::Normal, Priority::Low][usize::from(band)];
            Slot { band, known, computed, pages, own_pages: pages.saturating_sub(shared), sees }
        });
        prop::collection::vec(slot, 0..12).prop_map(|mut slots| {
            slots.sort_by_key(|slot| slot.band);
            slots
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        #[test]
        fn a_step_keeps_to_budget_and_pages_and_everyone_kept_moves(
            slots in slots(),
            free_pages in 0usize..30,
            extra in 0usize..50,
            seeing in prop::option::of(0usize..50),
        ) {
            let (sequences, seeing) = (slots.len().max(1), seeing.unwrap_or(usize::MAX));
            let room = Room { free_pages, page_tokens: PAGE, tokens: sequences + extra, seeing, sequences };
            let mut plan = StepPlan::default();
            super::plan(&slots, room, &mut plan);

            let indices: Vec<usize> = plan.work.iter().map(|work| work.index).collect();
            prop_assert_eq!(indices, (0..plan.keep).collect::<Vec<_>>(), "everyone who stays gets rows, once");
            let rows: usize = plan.work.iter().map(|work| work.rows).sum();
            prop_assert!(rows <= room.tokens);
            prop_assert!(plan.work.iter().all(|w| w.rows >= 1 && w.rows <= slots[w.index].remaining()));
            let taken: usize = plan
                .work
                .iter()
                .map(|w| (slots[w.index].computed + w.rows).div_ceil(PAGE) - slots[w.index].pages)
                .sum();
            let freed: usize = slots[plan.keep..].iter().map(|slot| slot.own_pages).sum();
            prop_assert!(taken <= free_pages + freed);
            if plan.keep < slots.len() {
                let (upto, behind) = slots.split_at(plan.keep + 1);
                let without: usize = behind.iter().map(|slot| slot.own_pages).sum();
                let needed = upto.iter().filter(|slot| slot.needs_page(PAGE)).count();
                prop_assert!(needed > free_pages + without, "nobody gives way without need");
            }
            let who_see = plan.work.iter().filter(|w| slots[w.index].sees);
            let seen = who_see.map(|w| w.rows - 1).sum::<usize>();
            prop_assert!(seen <= seeing);
            // Rows are left over only if nobody could use them.
            let may_more = |w: &&Work| !slots[w.index].sees || seen < seeing;
            let idle = plan.work.iter().filter(may_more).any(|w| w.rows < slots[w.index].remaining());
            prop_assert!(rows == room.tokens || !idle || taken == free_pages + freed);
        }

        #[test]
        fn who_is_admitted_fits_and_only_the_lesser_give_way(
            slots in slots(),
            (free_pages, known) in (0usize..60, 1usize..60),
        ) {
            let room = Room { free_pages, page_tokens: PAGE, tokens: 100, seeing: usize::MAX, sequences: 8 };
            let head = Head { band: Priority::Normal, known, lent_pages: 0, lent_by_peers: 0 };
            let promised: usize = slots.iter().map(|s| s.known.div_ceil(PAGE) - s.pages).sum();
            match admission(head, &slots, room) {
                Admission::Admit => {
                    prop_assert!(slots.len() < room.sequences);
                    prop_assert!(promised + known.div_ceil(PAGE) <= free_pages);
                }
                Admission::PreemptLast => prop_assert!(slots.last().unwrap().band > head.band),
                Admission::Wait => prop_assert!(!slots.is_empty() || known.div_ceil(PAGE) > free_pages),
            }
        }
    }

    impl Slot {
        fn needs_page(&self, page: usize) -> bool {
            self.computed == self.pages * page
        }
    }
}
