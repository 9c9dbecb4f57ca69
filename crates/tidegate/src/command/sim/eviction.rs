//! What each policy would have kept of the pages that a trace saw on the disk.

use std::fmt;

use engine::trace::Entry;
use memory::eviction::POLICIES;
use memory::replay::{Found, Use, distinct_bytes, optimum, replay};
use memory::{Key, PolicyChoice};
use serde_json::{Value, json};
use tidegate::settings::ByteSize;

/// Sizes that are tried where none is given: all that there was, divided by these.
const PARTS: [usize; 4] = [16, 8, 4, 2];

/// The uses of pages in a trace, in order.
pub(super) fn uses(entries: &[Entry]) -> Vec<Use> {
    let used = |entry: &Entry| match entry {
        Entry::Use(used) => Some(Use { key: Key(used.object.into()), bytes: used.bytes }),
        _ => None,
    };
    entries.iter().filter_map(used).collect()
}

/// What was found, by policy and by size.
pub(super) struct Report {
    uses: usize,
    distinct: usize,
    budgets: Vec<usize>,
    rows: Vec<(&'static str, Vec<Found>)>,
}

impl Report {
    /// Runs a trace again with each policy and each size.
    pub(super) fn of(uses: &[Use], budgets: &[ByteSize]) -> Self {
        let distinct = distinct_bytes(uses);
        let given = budgets.iter().map(|budget| usize::try_from(budget.0).unwrap_or(usize::MAX));
        let mut budgets: Vec<usize> = given.collect();
        if budgets.is_empty() {
            budgets.extend(PARTS.map(|part| distinct / part));
        }
        let with = |find: &dyn Fn(usize) -> Found| budgets.iter().map(|budget| find(*budget)).collect();
        let of_policy = |policy| with(&|budget| replay(&PolicyChoice::Known(policy), uses, budget));
        let mut rows: Vec<_> = POLICIES.iter().map(|policy| (policy.name, of_policy(*policy))).collect();
        rows.push(("optimum", with(&|budget| optimum(uses, budget))));
        Self { uses: uses.len(), distinct, budgets, rows }
    }

    pub(super) fn to_json(&self) -> Value {
        let figures =
            |found: &Found| json!({"hit_rate": found.hit_rate(), "byte_hit_rate": found.byte_hit_rate()});
        let row = |(name, found): &(&str, Vec<Found>)| {
            ((*name).to_owned(), found.iter().map(figures).collect::<Value>())
        };
        json!({
            "uses": self.uses,
            "bytes": self.distinct,
            "budgets": self.budgets,
            "policies": self.rows.iter().map(row).collect::<serde_json::Map<_, _>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |bytes: usize| ByteSize(bytes as u64).approximate();
        writeln!(
            f,
            "{} uses of pages, {} in all; of the uses, and of their bytes, were found",
            self.uses,
            size(self.distinct)
        )?;
        write!(f, "\n{:<12}", "with")?;
        self.budgets.iter().try_for_each(|budget| write!(f, "{:>20}", size(*budget)))?;
        for (name, found) in &self.rows {
            write!(f, "\n  {name:<10}")?;
            for found in found {
                let figures =
                    format!("{:.1} %, {:.1} %", found.hit_rate() * 100.0, found.byte_hit_rate() * 100.0);
                write!(f, "{figures:>20}")?;
            }
        }
        writeln!(f)
    }
}

#[cfg(test)]
mod tests {
    use engine::trace;

    use super::*;

    #[test]
    fn pages_that_come_back_are_found_where_there_is_room() {
        let page = |object| Entry::Use(trace::Use { object, bytes: 1 << 20 });
        let entries: Vec<Entry> = [1, 2, 1, 2, 3, 1].map(page).into();
        let report = Report::of(&uses(&entries), &[ByteSize(2 << 20), ByteSize(3 << 20)]);
        let json = report.to_json();
        assert_eq!((json["uses"].as_u64(), json["bytes"].as_u64()), (Some(6), Some(3 << 20)));
        for policy in POLICIES {
            assert_eq!(json["policies"][policy.name][1]["hit_rate"], 0.5, "{}", policy.name);
        }
        assert_eq!(json["policies"]["optimum"][0]["byte_hit_rate"], 0.5);
        assert_eq!(json["policies"]["lru"][0]["hit_rate"].as_f64(), Some(2.0 / 6.0));
        assert!(report.to_string().contains("33.3 %"), "{report}");
    }
}
