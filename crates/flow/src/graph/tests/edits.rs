//! Random edits of random graphs, against recomputation in full and the smallest set of runs that can be enough.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::*;
use crate::random::Random;

/// One node of the model. It depends on inputs and on nodes before it.
#[derive(Clone, Debug)]
struct Drawn {
    name: String,
    inputs: Vec<usize>,
    deps: Vec<usize>,
    plus: u64,
    modulus: u64,
    version: u64,
    compares: bool,
    waits: u64,
}

impl Drawn {
    /// What it makes. Some sums it cannot stand.
    fn compute(&self, values: impl Iterator<Item = u64>) -> Result<u64, String> {
        let sum = values.fold(self.plus, |sum, value| sum.wrapping_mul(3).wrapping_add(value));
        if sum % 17 == 5 { Err(format!("{sum} is too odd")) } else { Ok(sum % self.modulus) }
    }
}

/// What a result was computed from, as the model tells it apart.
type Key = (String, u64, Option<u64>, Vec<u64>);

/// A graph without any of the cleverness.
struct Model {
    random: Random,
    inputs: Vec<u64>,
    nodes: Vec<Drawn>,
    /// What tells the results of nodes that were declared void from earlier ones.
    salts: BTreeMap<String, u64>,
    /// Keys whose results were made at some time, and those whose values are kept.
    made: HashSet<Key>,
    kept: HashSet<Key>,
    versions: u64,
}

/// What the model expects of one node.
struct Expected {
    key: Option<Key>,
    outcome: Result<u64, String>,
    /// What its dependants see of it.
    print: u64,
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut random = Random::seeded(seed);
        let inputs = (0..1 + random.below(4)).map(|_| random.below(5)).collect();
        let (salts, made, kept) = Default::default();
        let mut model = Self { random, inputs, nodes: Vec::new(), salts, made, kept, versions: 0 };
        for number in 0..1 + model.random.below(14) {
            let node = model.draw(format!("node {number}"), number as usize);
            model.nodes.push(node);
        }
        model
    }

    fn draw(&mut self, name: String, place: usize) -> Drawn {
        let random = &mut self.random;
        self.versions += 1;
        Drawn {
            name,
            inputs: (0..random.below(3)).map(|_| random.below(self.inputs.len() as u64) as usize).collect(),
            deps: (0..random.below(4).min(place as u64))
                .map(|_| random.below(place as u64) as usize)
                .collect(),
            plus: random.below(10),
            modulus: [2, 3, 1000][random.below(3) as usize],
            version: self.versions,
            compares: random.below(5) > 0,
            waits: random.below(3),
        }
    }

    /// The graph that the model says, with the memory of those before it. It writes down what runs, and what came to an
    /// end.
    fn build(&mut self, memo: &Memo, logs: &[Log; 2]) -> Live {
        self.salts.clear();
        let mut graph = Graph::builder();
        graph.memo(memo.clone()).concurrency(1 + self.random.below(4) as usize);
        let inputs: Vec<_> = self
            .inputs
            .iter()
            .enumerate()
            .map(|(number, value)| graph.input(&format!("in {number}"), *value))
            .collect();
        let mut nodes: Vec<Node<u64>> = Vec::new();
        for drawn in &self.nodes {
            let given = drawn.inputs.iter().map(|input| inputs[*input].node());
            let deps: Vec<_> = given.chain(drawn.deps.iter().map(|dep| nodes[*dep])).collect();
            let (drawn, [log, done]) = (Arc::new(drawn.clone()), logs.clone());
            let mut node = graph.node(&drawn.name, deps).version(drawn.version);
            if !drawn.compares {
                node = node.uncompared();
            }
            nodes.push(node.run(move |values: Vec<Arc<u64>>| {
                let (drawn, log, done) = (Arc::clone(&drawn), log.clone(), done.clone());
                async move {
                    log.note(&drawn.name);
                    for _ in 0..drawn.waits {
                        tokio::task::yield_now().await;
                    }
                    let made = drawn.compute(values.iter().map(|value| **value));
                    done.note(&drawn.name);
                    made
                }
            }));
        }
        Live { graph: graph.build().unwrap(), inputs, nodes }
    }

    /// One random edit of model and graph.
    fn edit(&mut self, live: &mut Live, memo: &Memo, logs: &[Log; 2]) {
        let place = self.random.below(self.nodes.len() as u64) as usize;
        let name = self.nodes[place].name.clone();
        match self.random.below(12) {
            0 => {
                self.versions += 1;
                self.salts.insert(name, self.versions);
                live.graph.invalidate(live.nodes[place]).unwrap();
            }
            1 | 2 => {
                // Only what is known in the graph can be evicted from there.
                let key = self.expect().swap_remove(place).key;
                let states: HashMap<_, _> = live.graph.states().into_iter().collect();
                if states[&*name] == NodeState::Cached {
                    self.kept.remove(&key.unwrap());
                }
                live.graph.evict(live.nodes[place]).unwrap();
            }
            3 => {
                self.kept.clear();
                memo.clear();
            }
            4 => {
                self.nodes[place] = self.draw(name, place);
                *live = self.build(memo, logs);
            }
            5 => {
                let (random, inputs) = (&mut self.random, self.inputs.len() as u64);
                let node = &mut self.nodes[place];
                node.inputs.push(random.below(inputs) as usize);
                node.deps.truncate(random.below(3) as usize);
                *live = self.build(memo, logs);
            }
            6 => {
                let node = self.draw(format!("node {}", self.versions), self.nodes.len());
                self.nodes.push(node);
                *live = self.build(memo, logs);
            }
            _ => {
                let input = self.random.below(self.inputs.len() as u64) as usize;
                let value = self.random.below(5);
                let before = std::mem::replace(&mut self.inputs[input], value);
                let expected = if before == value { Change::None } else { Change::Changed };
                assert_eq!(live.graph.set(live.inputs[input], value).unwrap(), expected);
            }
        }
    }

    /// Every node computed in full.
    fn expect(&self) -> Vec<Expected> {
        let mut all: Vec<Expected> = Vec::new();
        for node in &self.nodes {
            let given = node.inputs.iter().map(|input| self.inputs[*input]);
            let deps: Result<Vec<u64>, String> =
                node.deps.iter().map(|dep| all[*dep].outcome.clone()).collect();
            let prints = given.clone().chain(node.deps.iter().map(|dep| all[*dep].print)).collect();
            let salt = self.salts.get(&node.name).copied();
            let key = (node.name.clone(), node.version, salt, prints);
            let outcome = deps.as_ref().map_err(Clone::clone);
            let outcome = outcome.and_then(|deps| node.compute(given.chain(deps.iter().copied())));
            let print = if node.compares { outcome.clone().unwrap_or(0) } else { hash(&key) };
            all.push(Expected { key: deps.is_ok().then_some(key), outcome, print });
        }
        all
    }

    fn cone(&self, targets: &[usize]) -> BTreeSet<usize> {
        let mut cone: BTreeSet<usize> = targets.iter().copied().collect();
        let mut open = targets.to_vec();
        while let Some(node) = open.pop() {
            open.extend(self.nodes[node].deps.iter().filter(|dep| cone.insert(**dep)));
        }
        cone
    }

    /// The smallest set of runs that gives the targets: those whose results are unknown and looked at, and those whose
    /// values are needed for these and gone.
    fn needed(&self, targets: &[usize], expected: &[Expected]) -> BTreeSet<usize> {
        let key = |node: usize| expected[node].key.as_ref().unwrap();
        let is_unknown = |node: &usize| self.nodes[*node].compares && !self.made.contains(key(*node));
        let mut runs: BTreeSet<usize> = self.cone(targets).into_iter().filter(is_unknown).collect();
        let mut values: Vec<usize> = targets.to_vec();
        values.extend(runs.iter().flat_map(|node| &self.nodes[*node].deps));
        while let Some(node) = values.pop() {
            if !self.kept.contains(key(node)) && runs.insert(node) {
                values.extend(&self.nodes[node].deps);
            }
        }
        runs
    }

    fn remember(&mut self, done: &[String], expected: &[Expected]) {
        for (node, expected) in self.nodes.iter().zip(expected) {
            if done.contains(&node.name) && expected.outcome.is_ok() {
                let key = expected.key.clone().unwrap();
                self.made.insert(key.clone());
                self.kept.insert(key);
            }
        }
    }

    fn names(&self, nodes: &BTreeSet<usize>) -> Vec<String> {
        let mut names: Vec<String> = nodes.iter().map(|node| self.nodes[*node].name.clone()).collect();
        names.sort_unstable();
        names
    }
}

struct Live {
    graph: Graph,
    inputs: Vec<Input<u64>>,
    nodes: Vec<Node<u64>>,
}

/// Asks for a few nodes, and compares every answer.
async fn answers_are_right(model: &mut Model, live: &Live, expected: &[Expected]) -> Vec<usize> {
    let targets = 1 + model.random.below(3);
    let targets: Vec<usize> =
        (0..targets).map(|_| model.random.below(model.nodes.len() as u64) as usize).collect();
    let answers = live.graph.get_many(targets.iter().map(|target| live.nodes[*target])).await.unwrap();
    for (target, answer) in targets.iter().zip(answers) {
        let answer = answer.map(|value| *value).map_err(|error| match error {
            GraphError::Node { path, cause: Cause::Error { error, .. } } => {
                let failed = model.nodes.iter().position(|node| node.name == path.node()).unwrap();
                assert_eq!(expected[failed].outcome, Err(error.to_string()));
                assert_eq!(*path.names()[0], *model.nodes[*target].name);
            }
            other => panic!("{other}"),
        });
        assert_eq!(answer, expected[*target].outcome.clone().map_err(drop));
    }
    targets
}

const EDITS: u64 = 40;

#[tokio::test]
async fn ten_thousand_edits_give_what_recomputation_gives_with_the_fewest_runs() {
    let (mut exact, mut spared, mut failed) = (0, 0, 0);
    for seed in 0..250 {
        let (memo, logs) = (Memo::default(), <[Log; 2]>::default());
        let mut model = Model::new(seed);
        let mut live = model.build(&memo, &logs);
        for edit in 0..EDITS {
            model.edit(&mut live, &memo, &logs);
            let expected = model.expect();
            let foretold = {
                let mut peek = model.random.clone();
                let count = 1 + peek.below(3);
                let first = peek.below(model.nodes.len() as u64) as usize;
                (count == 1).then(|| live.graph.explain(live.nodes[first]).unwrap())
            };
            let targets = answers_are_right(&mut model, &live, &expected).await;
            let [ran, done] = [logs[0].take(), logs[1].take()];
            let context = || format!("seed {seed}, edit {edit}, targets {targets:?} of {:#?}", model.nodes);
            if targets.iter().all(|target| expected[*target].outcome.is_ok()) {
                let needed = model.names(&model.needed(&targets, &expected));
                assert_eq!(ran, needed, "{}", context());
                if let Some(foretold) = foretold {
                    let may_run: Vec<&str> = foretold.may_run().collect();
                    assert!(
                        foretold.runs().all(|name| ran.iter().any(|ran| ran == name)),
                        "{foretold}{}",
                        context()
                    );
                    assert!(ran.iter().all(|name| may_run.contains(&&**name)), "{foretold}{}", context());
                }
                exact += 1;
                spared += model.cone(&targets).len() - ran.len();
            } else {
                let may_run: BTreeSet<usize> = model.cone(&targets).into_iter().collect();
                let may_run = model.names(&may_run);
                assert!(ran.iter().all(|name| may_run.contains(name)), "{}", context());
                failed += 1;
            }
            // Failures are not remembered, so only who fails may be tried again by one who comes to need it later.
            let again = ran.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| &pair[0]);
            for name in again {
                let node = model.nodes.iter().position(|node| node.name == *name).unwrap();
                assert!(expected[node].outcome.is_err(), "'{name}' ran twice: {}", context());
            }
            model.remember(&done, &expected);
            live.graph.assert_rest().await;
        }
    }
    assert!(
        exact > 4000 && spared > 10_000 && failed > 500,
        "{exact} exact, {spared} spared, {failed} failed"
    );
}

#[tokio::test]
async fn in_a_small_cache_answers_are_right_and_bytes_are_bounded() {
    let (mut evictions, mut hits) = (0, 0);
    for seed in 0..50 {
        let (memo, logs) = (Memo::new(600), <[Log; 2]>::default());
        let mut model = Model::new(seed);
        let mut live = model.build(&memo, &logs);
        for _ in 0..EDITS {
            model.edit(&mut live, &memo, &logs);
            let expected = model.expect();
            answers_are_right(&mut model, &live, &expected).await;
            let MemoStats { bytes, bound, .. } = memo.stats();
            assert!(bytes <= bound && bound == 600, "{bytes} of {bound}");
        }
        live.graph.assert_rest().await;
        evictions += memo.stats().evictions;
        hits += memo.stats().hits;
    }
    assert!(evictions > 1000 && hits > 1000, "{evictions} evictions, {hits} hits");
}
