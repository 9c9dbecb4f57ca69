//! What this machine can do at most: how fast it reads memory and multiplies. Shares of a floor are taken of these.

use std::hint::black_box;
use std::time::Instant;

use crate::{Dtype, Isa, Linear, Pool, TensorError};

/// More than any cache holds.
const COLD: usize = 192 << 20;

/// What operands are multiplied as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// f32 multiply-adds.
    F32,
    /// Products of bf16 pairs, sums in f32.
    Bf16,
    /// Products of 8-bit numbers, sums in 32 bits.
    Int8,
}

impl Arithmetic {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::Int8];

    /// A name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }

    /// What the operands of a layer can be multiplied as.
    pub(crate) fn of(layer: &Linear) -> Self {
        match (layer.dtype(), layer.scheme()) {
            (Dtype::F32, _) => Self::F32,
            (_, None) => Self::Bf16,
            (_, Some(_)) => Self::Int8,
        }
    }

    /// Its place in [`Self::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

/// What a number of threads reach together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peaks {
    /// How many threads.
    pub threads: usize,
    /// Bytes that are read per second, front to back, from memory that no cache holds.
    pub bandwidth: f64,
    /// Operations per second in registers, in the order of [`Arithmetic::ALL`]; a multiplication and an addition are
    /// two. Where a level has no instruction for an arithmetic, it is what its operands are widened to.
    pub operations: [f64; Arithmetic::ALL.len()],
}

impl Peaks {
    /// The better of two measurements of the same machine: whoever disturbed one of them may have spared the other.
    #[must_use]
    pub fn better(self, other: Self) -> Self {
        let operations = std::array::from_fn(|kind| self.operations[kind].max(other.operations[kind]));
        Self { bandwidth: self.bandwidth.max(other.bandwidth), operations, ..self }
    }

    /// Operations per second of one arithmetic.
    pub fn of(&self, arithmetic: Arithmetic) -> f64 {
        self.operations[arithmetic.index()]
    }
}

/// Passes of which the best is taken, and how much each of them does.
#[derive(Clone, Copy)]
struct Effort {
    reads: usize,
    multiplications: usize,
    rounds: usize,
}

/// Threads and memory with which a machine is asked, as often as one likes, what it gives.
pub struct Prober {
    pool: Pool,
    isa: Isa,
    /// Memory that no cache holds.
    memory: memory::Arena,
}

impl Prober {
    /// Gets `threads` threads ready to be measured with the instructions of `isa`.
    ///
    /// # Errors
    /// When the memory is refused.
    pub fn new(isa: Isa, threads: usize) -> Result<Self, TensorError> {
        // Huge pages, as the weights have them.
        let mut memory = memory::Arena::zeroed(COLD)?;
        // Pages that were never written are all one page of zeros.
        memory.bytes_mut().fill(1);
        Ok(Self { pool: Pool::new(threads), isa, memory })
    }

    /// What the machine reaches at most, in about a second: the best of several passes each, so that a busy neighbour shows
    /// in none of them rather than in all.
    pub fn most(&self) -> Peaks {
        self.peaks(Effort { reads: 8, multiplications: 5, rounds: 1 << 20 })
    }

    /// What it gives in this moment, in some hundredths of a second: a single pass each, with whatever others take of it.
    pub fn now(&self) -> Peaks {
        self.peaks(Effort { reads: 1, multiplications: 1, rounds: 1 << 16 })
    }

    fn peaks(&self, effort: Effort) -> Peaks {
        Peaks {
            threads: self.pool.threads(),
            bandwidth: self.bandwidth(effort),
            operations: Arithmetic::ALL.map(|arithmetic| self.multiplications(effort, arithmetic)),
        }
    }

    /// Bytes per second.
    fn bandwidth(&self, effort: Effort) -> f64 {
        let words: &[u64] = bytemuck::cast_slice(self.memory.bytes());
        let seconds = best_of(effort.reads, || {
            self.pool.run(&|worker| {
                let mut sums = [0u64; 32];
                for line in words[self.pool.share(words.len(), 32, worker)].as_chunks::<32>().0 {
                    sums.iter_mut().zip(line).for_each(|(sum, value)| *sum = sum.wrapping_add(*value));
                }
                black_box(sums);
            });
        });
        COLD as f64 / seconds
    }

    /// Operations per second.
    fn multiplications(&self, effort: Effort, arithmetic: Arithmetic) -> f64 {
        let busy = |rounds| match self.isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx => {
                crate::cpu::multiply_in_registers(self.isa, arithmetic, rounds)
            }
            _ => scalar(rounds),
        };
        let operations = busy(1);
        let seconds = best_of(effort.multiplications, || {
            self.pool.run(&|_| {
                busy(effort.rounds);
            });
        });
        (effort.rounds * operations * self.pool.threads()) as f64 / seconds
    }
}

/// Multiplies and adds without asking for instructions, and returns the operations of a round.
fn scalar(rounds: usize) -> usize {
    let mut sums = [0.0f32; 16];
    let x = black_box(0.5f32);
    for _ in 0..rounds {
        sums.iter_mut().for_each(|sum| *sum += x * x);
    }
    black_box(sums);
    2 * sums.len()
}

fn best_of(passes: usize, mut pass: impl FnMut()) -> f64 {
    if passes > 1 {
        pass();
    }
    let time = |_| {
        let start = Instant::now();
        pass();
        start.elapsed().as_secs_f64()
    };
    (0..passes).map(time).fold(f64::INFINITY, f64::min)
}
