//! The shape of a graph, checked once and never changed.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use super::handles::{Kind, Reference, Target};
use super::memo::Value;
use super::node::Computation;
use super::{Fingerprint, GraphError};

/// A node as its builder left it.
pub(super) struct Draft {
    pub(super) name: Arc<str>,
    pub(super) kind: Kind,
    pub(super) deps: Vec<Reference>,
    pub(super) source: Source,
}

/// Where a node's value comes from.
pub(super) enum Source {
    /// It is given; this is what it is at first.
    Given(Option<Given>),
    /// It is computed.
    Computed(Computation),
}

/// A value that was given, and its fingerprint.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) value: Value,
    pub(super) print: Fingerprint,
}

/// One node of a plan.
pub(super) struct Spec {
    pub(super) name: Arc<str>,
    pub(super) kind: Kind,
    pub(super) deps: Vec<u32>,
    pub(super) dependants: Vec<u32>,
    pub(super) source: Source,
}

impl Spec {
    pub(super) fn computation(&self) -> Option<&Computation> {
        match &self.source {
            Source::Given(_) => None,
            Source::Computed(computation) => Some(computation),
        }
    }
}

/// The shape of a graph.
pub(super) struct Plan {
    /// Told apart from all other graphs of the process by this.
    pub(super) tag: u64,
    pub(super) nodes: Vec<Spec>,
    names: HashMap<Arc<str>, u32>,
}

impl Plan {
    /// Checks the drafts and connects them.
    pub(super) fn new(tag: u64, drafts: Vec<Draft>) -> Result<Self, GraphError> {
        let mut plan = Self { tag, nodes: Vec::with_capacity(drafts.len()), names: HashMap::new() };
        for (index, draft) in drafts.iter().enumerate() {
            if plan.names.insert(Arc::clone(&draft.name), index as u32).is_some() {
                return Err(GraphError::Duplicate { name: Arc::clone(&draft.name) });
            }
        }
        let mut references = Vec::with_capacity(drafts.len());
        for Draft { name, kind, deps, source } in drafts {
            plan.nodes.push(Spec { name, kind, deps: Vec::new(), dependants: Vec::new(), source });
            references.push(deps);
        }
        for (index, references) in references.iter().enumerate() {
            let name = Arc::clone(&plan.nodes[index].name);
            for reference in references {
                let dep = plan.resolve(reference, &name)?;
                plan.nodes[index].deps.push(dep);
                plan.nodes[dep as usize].dependants.push(index as u32);
            }
        }
        plan.check_order()?;
        Ok(plan)
    }

    /// The node that is referred to by the one that is called `asker`.
    pub(super) fn resolve(&self, reference: &Reference, asker: &Arc<str>) -> Result<u32, GraphError> {
        let index = match &reference.target {
            Target::Handle { graph, .. } if *graph != self.tag => {
                return Err(GraphError::Foreign { node: Arc::clone(asker) });
            }
            Target::Handle { index, .. } => *index,
            Target::Name(name) => self
                .names
                .get(name)
                .copied()
                .ok_or_else(|| GraphError::Missing { node: Arc::clone(asker), input: Arc::clone(name) })?,
        };
        let found = &self.nodes[index as usize];
        if found.kind == reference.kind {
            Ok(index)
        } else {
            Err(GraphError::Mismatch {
                node: Arc::clone(asker),
                input: Arc::clone(&found.name),
                expected: reference.kind.name,
                found: found.kind.name,
            })
        }
    }

    pub(super) fn find(&self, name: &str) -> Option<u32> {
        self.names.get(name).copied()
    }

    pub(super) fn name(&self, node: u32) -> &Arc<str> {
        &self.nodes[node as usize].name
    }

    /// Checks that the nodes can stand in an order in which every one comes after those that it needs.
    fn check_order(&self) -> Result<(), GraphError> {
        let mut missing: Vec<usize> = self.nodes.iter().map(|node| node.deps.len()).collect();
        let mut order: Vec<u32> =
            (0..self.nodes.len() as u32).filter(|node| missing[*node as usize] == 0).collect();
        let mut next = 0;
        while let Some(node) = order.get(next) {
            next += 1;
            for dependant in &self.nodes[*node as usize].dependants {
                missing[*dependant as usize] -= 1;
                if missing[*dependant as usize] == 0 {
                    order.push(*dependant);
                }
            }
        }
        match missing.iter().position(|missing| *missing > 0) {
            None => Ok(()),
            Some(stuck) => Err(GraphError::Cycle { nodes: self.circle(stuck as u32, &missing) }),
        }
    }

    /// A circle among the nodes that still miss something, found by walking up from one of them until one comes again.
    fn circle(&self, stuck: u32, missing: &[usize]) -> Vec<Arc<str>> {
        let mut way = vec![stuck];
        let mut places = HashMap::from([(stuck, 0)]);
        let mut node = stuck;
        let is_stuck = |node: &&u32| missing[**node as usize] > 0;
        while let Some(up) = self.nodes[node as usize].deps.iter().find(is_stuck) {
            if let Some(place) = places.insert(*up, way.len()) {
                way.drain(..place);
                way.push(*up);
                break;
            }
            way.push(*up);
            node = *up;
        }
        way.iter().rev().map(|node| Arc::clone(self.name(*node))).collect()
    }

    /// `target` and everything it needs, in an order in which every one comes after those that it needs.
    pub(super) fn cone(&self, target: u32) -> Vec<u32> {
        let mut seen = HashSet::from([target]);
        let mut order = Vec::new();
        let mut open = vec![(target, 0)];
        while let Some((node, next)) = open.last_mut() {
            let deps = &self.nodes[*node as usize].deps;
            if let Some(dep) = deps.get(*next) {
                *next += 1;
                if seen.insert(*dep) {
                    open.push((*dep, 0));
                }
            } else {
                order.push(*node);
                open.pop();
            }
        }
        order
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.nodes.iter().map(|node| &node.name)).finish()
    }
}
