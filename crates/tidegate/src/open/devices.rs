//! The devices of this machine: groups of its processors, each with compute threads of its own.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread::available_parallelism;

use engine::{Device, Turns};
use tensor::{Cores, Isa, Kernels};

use crate::OpenError;
use crate::settings::{ComputeSettings, DeviceLayout};

/// A device, and what computes on it.
pub(super) struct Place {
    pub(super) kernels: Arc<dyn Kernels>,
    /// The models on it compute in turns.
    pub(super) turns: Turns,
    /// The node of memory that it is near.
    pub(super) node: usize,
}

impl Place {
    /// Kernels with threads that nobody else has.
    pub(super) fn fresh(&self, isa: Isa) -> Arc<dyn Kernels> {
        let Device { threads, cores, .. } = self.turns.device();
        tensor::kernels_on(isa, *threads, cores)
    }
}

/// The devices that the settings name; the kernels of the first are what `around` makes of them.
pub(super) fn places(
    settings: &ComputeSettings,
    isa: Isa,
    around: impl FnOnce(Arc<dyn Kernels>) -> Arc<dyn Kernels>,
) -> Result<Vec<Place>, OpenError> {
    let processors = Processors::read(Path::new(ROOT));
    let groups = processors.divided(&settings.devices)?;
    let several = groups.len() > 1;
    let place = |(at, cores): (usize, Cores)| {
        let granted = available_parallelism().map_or(1, usize::from);
        let own = if several { cores.numbers().len() } else { granted };
        let threads = settings.threads.map_or(own, |threads| (threads.get() / groups.len()).max(1));
        let node = processors.node(&cores);
        // Alone, its threads go wherever the system puts them.
        let cores = if several { cores } else { Cores::default() };
        let kernels = tensor::kernels_on(isa, threads, &cores);
        Place { kernels, turns: Turns::on(Device { name: format!("cpu{at}"), threads, cores }), node }
    };
    let mut places: Vec<Place> = groups.iter().cloned().enumerate().map(place).collect();
    places[0].kernels = around(Arc::clone(&places[0].kernels));
    Ok(places)
}

/// The groups of this machine's processors that a layout names, at least one.
pub(crate) fn groups(layout: &DeviceLayout) -> Result<Vec<Cores>, OpenError> {
    Processors::read(Path::new(ROOT)).divided(layout)
}

/// Below this folder Linux says what there is.
const ROOT: &str = "/";

/// The processors that this process may use.
struct Processors {
    allowed: Cores,
    /// Those near each node of memory.
    nodes: Vec<Cores>,
}

impl Processors {
    /// Reads what Linux says below a folder.
    fn read(root: &Path) -> Self {
        let status = fs::read_to_string(root.join("proc/self/status")).unwrap_or_default();
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let all = || Cores::new((0..available_parallelism().map_or(1, usize::from)).collect());
        let allowed = list.and_then(|list| list.trim().parse().ok()).unwrap_or_else(all);
        let node = |number: usize| {
            let path = root.join(format!("sys/devices/system/node/node{number}/cpulist"));
            fs::read_to_string(path).ok().map(|list| list.trim().parse().unwrap_or_default())
        };
        Self { allowed, nodes: (0..).map_while(node).collect() }
    }

    /// At least one group.
    fn divided(&self, layout: &DeviceLayout) -> Result<Vec<Cores>, OpenError> {
        let numbers = self.allowed.numbers();
        let wrong = |found: String| Err(OpenError::Devices { asked: layout.to_string(), found });
        match layout {
            DeviceLayout::Groups(count) if count.get() > numbers.len() => {
                wrong(format!("there are {} processors ({})", numbers.len(), self.allowed))
            }
            DeviceLayout::Groups(count) => {
                let cut = |at: usize| numbers.len() * at / count.get();
                Ok((0..count.get()).map(|at| Cores::new(numbers[cut(at)..cut(at + 1)].to_vec())).collect())
            }
            DeviceLayout::Nodes => {
                let own = |node: &Cores| {
                    let own = node.numbers().iter().filter(|core| numbers.contains(core));
                    Cores::new(own.copied().collect())
                };
                let nodes = self.nodes.iter().map(own).filter(|node| !node.numbers().is_empty());
                let nodes: Vec<Cores> = nodes.collect();
                Ok(if nodes.is_empty() { vec![self.allowed.clone()] } else { nodes })
            }
            DeviceLayout::Lists(lists) => {
                let mut seen = Vec::new();
                for core in lists.iter().flat_map(Cores::numbers) {
                    if !numbers.contains(core) {
                        return wrong(format!(
                            "processor {core} is none of those granted ({})",
                            self.allowed
                        ));
                    }
                    if seen.contains(core) {
                        return wrong(format!("processor {core} is in two of them"));
                    }
                    seen.push(*core);
                }
                Ok(lists.clone())
            }
        }
    }

    /// The node of memory that a group is near, judged by its first processor.
    fn node(&self, cores: &Cores) -> usize {
        let first = cores.numbers().first();
        let has = |node: &Cores| first.is_some_and(|first| node.numbers().contains(first));
        self.nodes.iter().position(has).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_divided_as_asked() {
        let cores = |list: &str| list.parse::<Cores>().unwrap();
        let machine = Processors {
            allowed: cores("0-2,4-7"),
            nodes: vec![cores("0-3"), cores("4-7"), Cores::default()],
        };
        let check = |layout: &str, expected: Result<&str, &str>| {
            let layout: DeviceLayout = layout.parse().unwrap();
            let found = machine.divided(&layout).map_err(|error| error.to_string());
            let found = found.map(|groups| groups.iter().map(Cores::to_string).collect::<Vec<_>>().join("/"));
            match expected {
                Ok(groups) => assert_eq!(found.unwrap(), groups),
                Err(part) => assert!(found.as_ref().is_err_and(|told| told.contains(part)), "{found:?}"),
            }
        };
        check("1", Ok("0-2,4-7"));
        check("3", Ok("0-1/2,4/5-7"));
        check("numa", Ok("0-2/4-7"));
        check("0-1/4,6", Ok("0-1/4,6"));
        check("8", Err("there are 7 processors (0-2,4-7)"));
        check("0/3", Err("processor 3 is none of those granted"));
        check("0-1/1-2", Err("processor 1 is in two of them"));
        assert_eq!((machine.node(&cores("5")), machine.node(&cores("1-2"))), (1, 0));
    }
}
