//! How the processors are divided into devices.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use tensor::Cores;

/// How the processors are divided into devices, written as a number, `numa`, or `0-3/4-7`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceLayout {
    /// Into so many groups of about the same size.
    Groups(NonZeroUsize),
    /// By the nodes of memory that they are near.
    Nodes,
    /// As they are listed.
    Lists(Vec<Cores>),
}

impl Default for DeviceLayout {
    fn default() -> Self {
        Self::Groups(NonZeroUsize::MIN)
    }
}

impl fmt::Display for DeviceLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Groups(count) => count.fmt(f),
            Self::Nodes => f.write_str("numa"),
            Self::Lists(lists) => {
                let lists: Vec<String> = lists.iter().map(Cores::to_string).collect();
                f.write_str(&lists.join("/"))
            }
        }
    }
}

impl FromStr for DeviceLayout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "numa" {
            return Ok(Self::Nodes);
        }
        if let Ok(count) = text.parse() {
            return Ok(Self::Groups(count));
        }
        let lists = text.split('/').map(str::parse).collect::<Result<Vec<Cores>, _>>();
        // A single number that is no number of groups is 0.
        let lists = lists.ok().filter(|lists| text != "0" && !lists.is_empty());
        let refuse = || {
            format!(
                "'{text}' does not name devices; write a number from 1, numa, or processors as in 0-3/4-7"
            )
        };
        lists.map(Self::Lists).ok_or_else(refuse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_read_back() {
        for text in ["1", "4", "numa", "0-3/4-7", "0,2/1,3", "0-1"] {
            assert_eq!(text.parse::<DeviceLayout>().unwrap().to_string(), text);
        }
        for wrong in ["0", "", "two", "0-3/", "3-1/0"] {
            assert!(wrong.parse::<DeviceLayout>().unwrap_err().contains("0-3/4-7"), "{wrong}");
        }
    }
}
