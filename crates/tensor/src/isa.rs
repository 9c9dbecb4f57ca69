//! Instruction sets that kernels exist for, and which of them this machine runs.

#[cfg(target_arch = "x86_64")]
mod x86;

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use crate::TensorError;

/// An instruction set level; a later one includes the earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust, the reference.
    Scalar,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512 F, BW, DQ, VL.
    Avx512,
    /// AVX-512 with `vdpbf16ps` for bf16 products.
    Avx512Bf16,
    /// AMX tiles for products of bf16 and of bytes, AVX-512 for the rest.
    Amx,
}

impl Isa {
    /// All levels, lowest first.
    pub const ALL: [Self; 5] = [Self::Scalar, Self::Avx2, Self::Avx512, Self::Avx512Bf16, Self::Amx];

    /// The name that `TIDEGATE_ISA` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512bf16",
            Self::Amx => "amx",
        }
    }

    /// The levels that this machine runs, lowest first; never empty. The first call asks the operating system for the
    /// permission to use AMX tiles, which it gives to a process once and for all its threads.
    pub fn available() -> Vec<Self> {
        Machine::here().available()
    }

    /// The fastest level on this machine.
    pub fn best() -> Self {
        Machine::here().best()
    }

    /// This level, if this machine runs it.
    ///
    /// # Errors
    /// [`TensorError::IsaUnavailable`], which lists what the machine runs.
    pub fn require(self) -> Result<Self, TensorError> {
        let available = Self::available();
        if available.contains(&self) {
            Ok(self)
        } else {
            Err(TensorError::IsaUnavailable { asked: self, available })
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = TensorError;

    fn from_str(name: &str) -> Result<Self, TensorError> {
        let named = Self::ALL.into_iter().find(|isa| isa.name() == name);
        named.ok_or_else(|| TensorError::UnknownIsa { found: name.to_owned() })
    }
}

/// Names joined by commas, for messages.
pub(crate) fn list(levels: &[Isa]) -> String {
    levels.iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", ")
}

/// What a machine says about itself, from which the choice of an instruction set follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Machine {
    /// The highest level of which every lower one is there too.
    highest: Isa,
    vendor: Vendor,
}

#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "told apart on x86-64 alone"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vendor {
    Intel,
    Other,
}

impl Machine {
    fn here() -> Self {
        static HERE: OnceLock<Machine> = OnceLock::new();
        #[cfg(target_arch = "x86_64")]
        let detect = x86::machine;
        #[cfg(not(target_arch = "x86_64"))]
        let detect = || Self { highest: Isa::Scalar, vendor: Vendor::Other };
        *HERE.get_or_init(detect)
    }

    fn available(self) -> Vec<Isa> {
        Isa::ALL.into_iter().filter(|isa| *isa <= self.highest).collect()
    }

    /// On Intel without AMX the highest level is not the fastest: `vdpbf16ps` was measured at half the rate of the f32
    /// multiply-add on Sapphire Rapids, and widening bf16 to f32 costs less than that. On AMD Zen 4 the same
    /// instruction does twice the products of the f32 one.
    fn best(self) -> Isa {
        match (self.highest, self.vendor) {
            (Isa::Avx512Bf16, Vendor::Intel) => Isa::Avx512,
            (highest, _) => highest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_follows_the_machine() {
        use Isa::{Amx, Avx2, Avx512, Avx512Bf16, Scalar};
        let check = |highest, vendor, best| {
            let machine = Machine { highest, vendor };
            assert_eq!(machine.best(), best, "{machine:?}");
            assert_eq!(machine.available().last(), Some(&highest));
            assert_eq!(machine.available().first(), Some(&Scalar));
        };
        check(Scalar, Vendor::Other, Scalar);
        check(Avx2, Vendor::Intel, Avx2);
        check(Avx512, Vendor::Intel, Avx512);
        check(Avx512Bf16, Vendor::Intel, Avx512);
        check(Avx512Bf16, Vendor::Other, Avx512Bf16);
        check(Amx, Vendor::Intel, Amx);
    }

    #[test]
    fn names_are_read_back() {
        for isa in Isa::ALL {
            assert_eq!(isa.name().parse::<Isa>().unwrap(), isa);
        }
        let message = "sse".parse::<Isa>().unwrap_err().to_string();
        assert!(
            message.contains("'sse'") && message.contains("scalar, avx2, avx512, avx512bf16, amx"),
            "{message}"
        );
    }

    #[test]
    fn what_is_available_can_be_required_and_the_rest_says_what_is() {
        let available = Isa::available();
        assert!(available.contains(&Isa::best()));
        for isa in Isa::ALL {
            match isa.require() {
                Ok(granted) => assert!(granted == isa && available.contains(&isa)),
                Err(refused) => {
                    assert!(!available.contains(&isa));
                    assert!(refused.to_string().contains(&list(&available)), "{refused}");
                }
            }
        }
    }
}
