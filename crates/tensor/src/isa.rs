//! Instruction sets that kernels exist for, and which of them this machine runs.

use std::fmt;
use std::str::FromStr;

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
    /// AMX tiles for bf16 products, AVX-512 for the rest.
    Amx,
}

impl Isa {
    /// All levels, slowest first.
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

    /// The levels that this machine runs, slowest first; never empty.
    pub fn available() -> Vec<Self> {
        vec![Self::Scalar]
    }

    /// The fastest level on this machine.
    pub fn best() -> Self {
        Self::Scalar
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|isa| isa.name() == name)
            .ok_or_else(|| format!("'{name}' is none of scalar, avx2, avx512, avx512bf16, amx"))
    }
}
