//! A graph as a picture.

use std::fmt::{self, Write};

use super::Graph;
use super::plan::Source;

/// What a node is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeState {
    /// It is an input without a value.
    Unset,
    /// It is an input with a value.
    Set,
    /// Nobody has asked for it.
    New,
    /// Its value is there.
    Cached,
    /// Its result is known, and its value is gone.
    Evicted,
    /// Something that it depends on was changed.
    Dirty,
    /// It, or something that it depends on, failed when it was last asked for.
    Failed,
    /// It waits for what it depends on, or for its turn.
    Waiting,
    /// It runs.
    Running,
}

impl NodeState {
    fn name(self) -> &'static str {
        match self {
            Self::Unset => "unset",
            Self::Set => "set",
            Self::New => "new",
            Self::Cached => "cached",
            Self::Evicted => "evicted",
            Self::Dirty => "dirty",
            Self::Failed => "failed",
            Self::Waiting => "waiting",
            Self::Running => "running",
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Self::Unset | Self::New => "#ffffff",
            Self::Set => "#dbe9f6",
            Self::Cached => "#d3ecd0",
            Self::Evicted => "#eef5ec",
            Self::Dirty => "#fdebc8",
            Self::Failed => "#f6cfcb",
            Self::Waiting => "#e4e0f3",
            Self::Running => "#c5b8ea",
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is drawn of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drawing {
    /// Nodes, inputs and what depends on what.
    Shape,
    /// The same, and what every node is at.
    States,
}

impl Graph {
    /// What each node is at, in the order in which they were added.
    pub fn states(&self) -> Vec<(&str, NodeState)> {
        let nodes = 0..self.shared.plan.nodes.len() as u32;
        let states: Vec<NodeState> = self.shared.enter(|evaluation| {
            nodes.map(|node| evaluation.node_state(evaluation.current(), node)).collect()
        });
        self.names().zip(states).collect()
    }

    /// The graph in the language of Graphviz.
    pub fn to_dot(&self, drawing: Drawing) -> String {
        let quoted = |name: &str| format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
        let mut dot = String::from(
            "digraph {\n  rankdir=LR;\n  node [shape=box, style=\"rounded,filled\", fillcolor=white];\n",
        );
        for (node, (name, state)) in self.shared.plan.nodes.iter().zip(self.states()) {
            let mut marks = Vec::new();
            if matches!(node.source, Source::Given(_)) {
                marks.push("shape=ellipse".to_owned());
            }
            if drawing == Drawing::States {
                let label = quoted(&format!("{name}\n{state}")).replace('\n', "\\n");
                marks.push(format!("label={label}, fillcolor=\"{}\"", state.colour()));
            }
            let marks = if marks.is_empty() { String::new() } else { format!(" [{}]", marks.join(", ")) };
            let _ = writeln!(dot, "  {}{marks};", quoted(name));
        }
        for node in &self.shared.plan.nodes {
            for dep in &node.deps {
                let _ = writeln!(dot, "  {} -> {};", quoted(self.shared.plan.name(*dep)), quoted(&node.name));
            }
        }
        dot + "}\n"
    }

    /// The graph in the language of Mermaid.
    pub fn to_mermaid(&self, drawing: Drawing) -> String {
        let quoted = |name: &str| name.replace('"', "#quot;").replace('<', "#lt;").replace('>', "#gt;");
        let mut mermaid = String::from("flowchart LR\n");
        let mut used: Vec<NodeState> = Vec::new();
        for (index, (node, (name, state))) in self.shared.plan.nodes.iter().zip(self.states()).enumerate() {
            let (open, close) =
                if matches!(node.source, Source::Given(_)) { ("([", "])") } else { ("[", "]") };
            let name = quoted(name);
            let _ = match drawing {
                Drawing::Shape => writeln!(mermaid, "  n{index}{open}\"{name}\"{close}"),
                Drawing::States => {
                    writeln!(mermaid, "  n{index}{open}\"{name}<br/>{state}\"{close}:::{state}")
                }
            };
            if drawing == Drawing::States && !used.contains(&state) {
                used.push(state);
            }
        }
        for (index, node) in self.shared.plan.nodes.iter().enumerate() {
            for dep in &node.deps {
                let _ = writeln!(mermaid, "  n{dep} --> n{index}");
            }
        }
        for state in used {
            let _ =
                writeln!(mermaid, "  classDef {state} fill:{},stroke:#555555,color:#111111", state.colour());
        }
        mermaid
    }
}
