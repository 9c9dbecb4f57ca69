//! What would be done for a node, found out without doing it.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Evaluation, State, ViewId};
use crate::graph::explain::{Reason, Verdict};
use crate::graph::{Digest, Fingerprint};

/// What would become of a node.
pub(in crate::graph) struct Forecast {
    pub(in crate::graph) verdict: Verdict,
    /// Whether anything would look at it.
    pub(in crate::graph) is_needed: bool,
    /// Its key and the fingerprint of its result, as far as they can be told before anything runs.
    key: Option<Fingerprint>,
    print: Option<Fingerprint>,
}

impl Forecast {
    fn runs(&self) -> bool {
        matches!(self.verdict, Verdict::Runs(_) | Verdict::MayRun(_))
    }
}

impl Evaluation {
    /// What would become of a node whose fingerprint is needed, given the same of everything before it.
    pub(in crate::graph) fn forecast(
        &self,
        view: ViewId,
        node: u32,
        before: &HashMap<u32, Forecast>,
    ) -> Forecast {
        let spec = &self.plan.nodes[node as usize];
        let state = self.slot(view, node).state;
        let said = |verdict, key, print| Forecast { verdict, is_needed: false, key, print };
        let Some(computation) = spec.computation() else {
            return match state {
                State::Known(known) => said(Verdict::Given, Some(known.key), Some(known.print)),
                _ => said(Verdict::Unset, None, None),
            };
        };
        if let State::Known(known) = state {
            return said(Verdict::Known, Some(known.key), Some(known.print));
        }
        let prints: Option<Vec<Fingerprint>> = spec.deps.iter().map(|dep| before[dep].print).collect();
        let reason = match state {
            State::Stale { by, .. } => Reason::Changed(Arc::clone(self.plan.name(by))),
            State::Failed => Reason::Failed,
            _ => Reason::New,
        };
        let Some(prints) = prints else {
            let uncertain = spec.deps.iter().find(|dep| before[*dep].print.is_none());
            let reason = uncertain.map_or(reason, |dep| Reason::Behind(Arc::clone(self.plan.name(*dep))));
            return said(Verdict::MayRun(reason), None, None);
        };
        let mut digest = Digest::new();
        self.feed_key(view, node, computation.seed, &mut digest);
        prints.into_iter().for_each(|print| digest.fingerprint(print));
        let key = digest.finish();
        let print = key.and_then(|key| self.print(view, node, computation, key));
        let verdict = if print.is_some() { Verdict::Known } else { Verdict::Runs(reason) };
        said(verdict, key, print)
    }

    /// Finds out from the last node backwards which are needed at all, and whose values are needed and gone.
    pub(in crate::graph) fn refine(
        &self,
        view: ViewId,
        cone: &[u32],
        forecasts: &mut HashMap<u32, Forecast>,
    ) {
        let mut wanted: HashMap<u32, Verdict> = HashMap::new();
        if let Some(target) = cone.last() {
            wanted.insert(*target, Verdict::Runs(Reason::Evicted));
        }
        for node in cone.iter().rev() {
            let Some(forecast) = forecasts.get_mut(node) else { continue };
            let is_target = Some(node) == cone.last();
            forecast.is_needed |= is_target || wanted.contains_key(node);
            let is_gone = || forecast.key.is_some_and(|key| !self.memo.holds(key));
            if let Some(wanted) = wanted.remove(node)
                && forecast.verdict == Verdict::Known
                && is_gone()
            {
                forecast.verdict = wanted;
            }
            if !forecast.is_needed {
                continue;
            }
            let runs = forecast.runs();
            let wants = match forecast.verdict {
                Verdict::Runs(_) => Some(Verdict::Runs(Reason::Evicted)),
                Verdict::MayRun(_) => Some(Verdict::MayRun(Reason::Evicted)),
                _ => None,
            };
            let is_established = self.is_known(view, *node);
            for dep in &self.plan.nodes[*node as usize].deps {
                if let Some(wants) = &wants {
                    // One that runs for certain outweighs one that may.
                    let entry = wanted.entry(*dep).or_insert_with(|| wants.clone());
                    if matches!(wants, Verdict::Runs(_)) {
                        *entry = wants.clone();
                    }
                }
                if let Some(dep) = forecasts.get_mut(dep) {
                    dep.is_needed |= runs || !is_established;
                }
            }
        }
    }
}
