//! What would run, and why.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::evaluation::Forecast;
use super::{Graph, GraphError, Node};

/// What asking for a node would do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Every node that may be needed, those that others need first, the one that was asked about last.
    pub steps: Vec<Step>,
}

/// What would become of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The node.
    pub node: Arc<str>,
    /// What would become of it.
    pub verdict: Verdict,
}

/// What would become of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It is an input, and its value is there.
    Given,
    /// It is an input, and nobody has set it, so what needs it would fail.
    Unset,
    /// Its result is known, and nothing needs to run for it.
    Known,
    /// It runs.
    Runs(Reason),
    /// It runs unless what it depends on comes out as it was before, or is remembered.
    MayRun(Reason),
}

/// Why a node runs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// There is no result for its inputs yet.
    New,
    /// This input was set, or this node was declared void.
    Changed(Arc<str>),
    /// Its last run failed, or that of something it depends on.
    Failed,
    /// Its value is needed and was evicted.
    Evicted,
    /// This node, which it depends on, runs or may run.
    Behind(Arc<str>),
}

impl Explanation {
    /// The nodes that run for certain.
    pub fn runs(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().filter(|step| matches!(step.verdict, Verdict::Runs(_))).map(|step| &*step.node)
    }

    /// The nodes that run or may run.
    pub fn may_run(&self) -> impl Iterator<Item = &str> {
        let may_run = |step: &&Step| matches!(step.verdict, Verdict::Runs(_) | Verdict::MayRun(_));
        self.steps.iter().filter(may_run).map(|step| &*step.node)
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "{}: {}", step.node, step.verdict))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given => f.write_str("given"),
            Self::Unset => f.write_str("not set"),
            Self::Known => f.write_str("known"),
            Self::Runs(reason) => write!(f, "runs, because {reason}"),
            Self::MayRun(reason) => write!(f, "may run, because {reason}"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("it has not run for these inputs"),
            Self::Changed(by) => write!(f, "'{by}' was changed"),
            Self::Failed => f.write_str("it has failed"),
            Self::Evicted => f.write_str("its value was evicted and is needed"),
            Self::Behind(node) => write!(f, "'{node}' comes before it"),
        }
    }
}

impl Graph {
    /// What [`Graph::get`] of a node would run now, and why. Nothing runs.
    ///
    /// # Errors
    /// If the handle belongs to another graph.
    pub fn explain<B: Send + Sync + 'static>(&self, node: Node<B>) -> Result<Explanation, GraphError> {
        let target = self.own(node)?;
        let plan = &self.shared.plan;
        let cone = plan.cone(target);
        let verdicts = self.shared.enter(|evaluation| {
            let view = evaluation.current();
            let mut forecasts: HashMap<u32, Forecast> = HashMap::with_capacity(cone.len());
            for node in &cone {
                let forecast = evaluation.forecast(view, *node, &forecasts);
                forecasts.insert(*node, forecast);
            }
            evaluation.refine(view, &cone, &mut forecasts);
            forecasts
        });
        let step = |node: &u32| {
            let forecast = &verdicts[node];
            forecast
                .is_needed
                .then(|| Step { node: Arc::clone(plan.name(*node)), verdict: forecast.verdict.clone() })
        };
        Ok(Explanation { steps: cone.iter().filter_map(step).collect() })
    }
}
