//! Where the most probable tokens of a row end that have a share of the probability together.
//!
//! Of a sample of the row it is guessed between which logits the border lies. One pass tells whether the guess is right,
//! and leaves what lies between them, among which the same is done again until so little is left that it is put in
//! order. What is found is exact, only how long it takes depends on the guesses; and no step of it depends on anything
//! but the row.

use tensor::scan::{Scan, Softmax, Span};

/// So few logits are put in order.
const SORTED: usize = 512;

/// About so many logits are looked at for a guess.
const SAMPLE: usize = 512;

/// How many standard deviations of the sampled mass a guess leaves on either side.
const SPREADS: f64 = 3.0;

/// More rounds than any row was seen to need; then all that is left is put in order.
const ROUNDS: usize = 24;

/// Which logits stay: those at or above `floor`. Where only some of the last ones do, which tie in their score, these lie
/// below `above`, and the first `ties` of them in the order of ids stay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Border {
    pub(super) floor: f32,
    pub(super) above: Option<f32>,
    pub(super) ties: Option<usize>,
}

impl Border {
    /// All logits above minus infinity stay.
    pub(super) const ALL: Self = Self { floor: f32::MIN, above: None, ties: None };

    /// Of the logits of one score the first `ties` stay.
    fn at((floor, above): Span, ties: usize, of: usize) -> Self {
        Self { floor, above, ties: (ties < of).then_some(ties) }
    }
}

/// Part of a row, with weights.
#[derive(Debug, Default)]
struct Part {
    logits: Vec<f32>,
    /// How many logits are of this part; those behind them are left over.
    count: usize,
    weights: Vec<f32>,
    sums: Vec<f64>,
}

impl Part {
    /// Takes the part of a row that lies within `span`, and weighs it; returns what the part above it weighs.
    fn take(&mut self, by: (Scan, Softmax), (row, weights): (&[f32], &[f32]), span: Span) -> f64 {
        let (scan, softmax) = by;
        let (count, above) = scan.split(row, weights, span, &mut self.logits);
        self.count = count;
        self.weigh(scan, softmax);
        above
    }

    fn weigh(&mut self, scan: Scan, softmax: Softmax) {
        scan.weigh(&self.logits[..self.count], softmax, (&mut self.weights, &mut self.sums));
    }

    fn mass(&self) -> f64 {
        self.sums.iter().sum()
    }
}

/// Finds borders. Keeps its memory from one row to the next.
#[derive(Debug, Default)]
pub(super) struct Borders {
    sample: Part,
    parts: [Part; 2],
}

impl Borders {
    /// The border of the most probable tokens before each of which less than the share `p` of the mass lies, and of one at
    /// least. `row` is logits, their weights, and the sum of these.
    pub(super) fn find(&mut self, by: (Scan, Softmax), row: (&[f32], &[f32], f64), p: f64) -> Border {
        let Self { sample, parts: [part, next] } = self;
        let (row, weights, mut mass) = row;
        // Of the mass of what is looked at, what is wanted from its top on.
        let mut wanted = p * mass;
        let (mut is_part, mut is_exact) = (false, false);
        for _ in 0..ROUNDS {
            let (logits, weights) =
                if is_part { (&part.logits[..part.count], part.weights.as_slice()) } else { (row, weights) };
            if logits.len() <= SORTED {
                break;
            }
            let guess = guess(sample, by, logits, mass - wanted);
            let span = if is_exact { guess.middle } else { guess.span };
            let above = next.take(by, (logits, weights), span);
            let inside = next.mass();
            if above >= wanted && above > 0.0 {
                let begin = span.1.unwrap_or(f32::MAX);
                next.take(by, (logits, weights), (begin, None));
                mass = above;
            } else if above + inside < wanted && span.0 > f32::MIN {
                next.take(by, (logits, weights), (f32::MIN, Some(span.0)));
                wanted -= above + inside;
                mass -= above + inside;
            } else {
                wanted -= above;
                mass = inside;
                if is_exact {
                    return of_ties(span, wanted, (next.weights.first(), next.count));
                }
            }
            // Where many tie, a guess may leave most of them: then a single score is tried, which ends it or takes these away.
            is_exact = !is_exact && next.count > logits.len() / 2;
            is_part = true;
            std::mem::swap(part, next);
        }
        if !is_part {
            part.take(by, (row, weights), (f32::MIN, None));
        }
        in_order(part, by, wanted)
    }
}

/// What is left of the logits of one score.
fn of_ties(span: Span, wanted: f64, (weight, count): (Option<&f32>, usize)) -> Border {
    let stay = (wanted / f64::from(weight.copied().unwrap_or(0.0))).ceil().max(1.0);
    Border::at(span, if stay < count as f64 { stay as usize } else { count }, count)
}

/// The logits of one score.
fn tied(softmax: Softmax, score: f32) -> Span {
    (softmax.first_reaching(score).unwrap_or(f32::MIN), softmax.first_reaching(score.next_up()))
}

/// Puts the logits in order and counts down from the top.
fn in_order(part: &mut Part, (scan, softmax): (Scan, Softmax), mut wanted: f64) -> Border {
    part.logits[..part.count].sort_unstable_by(|a, b| b.total_cmp(a));
    part.weigh(scan, softmax);
    let mut rest = &part.logits[..part.count];
    let mut floor = f32::MIN;
    while let Some(&logit) = rest.first() {
        let score = softmax.score(logit);
        let ties = rest.iter().take_while(|logit| softmax.score(**logit) == score).count();
        let weight = &part.weights[part.count - rest.len()];
        let together = f64::from(*weight) * ties as f64;
        if wanted <= together {
            return of_ties(tied(softmax, score), wanted, (Some(weight), ties));
        }
        wanted -= together;
        rest = &rest[ties..];
        floor = logit;
    }
    let (floor, _) = tied(softmax, softmax.score(floor));
    Border { floor, ..Border::ALL }
}

/// Between which logits a border may lie.
struct Guess {
    /// Where it most probably lies.
    span: Span,
    /// The logits of the one score in the middle of that.
    middle: Span,
}

/// Guesses where the logits begin, counted from the lowest, that have more than `below` of the mass below them.
///
/// The mass is counted from the lowest logits because these weigh so little that no single one matters: where few tokens have
/// almost all of the probability a sample misses them, and the guess is still right that the border lies among them.
fn guess(sample: &mut Part, (scan, softmax): (Scan, Softmax), row: &[f32], below: f64) -> Guess {
    let step = (row.len() / SAMPLE).max(1);
    let numbers = row.iter().copied().step_by(step).filter(|&logit| logit > f32::NEG_INFINITY);
    sample.logits.clear();
    sample.logits.extend(numbers);
    sample.logits.sort_unstable_by(f32::total_cmp);
    sample.count = sample.logits.len();
    sample.weigh(scan, softmax);
    let (mut low, mut high, mut middle) = (None, None, None);
    let (mut sum, mut squares) = (0.0, 0.0);
    for (&logit, &weight) in sample.logits.iter().zip(&sample.weights) {
        let weight = f64::from(weight) * step as f64;
        sum += weight;
        squares += weight * weight;
        let spread = SPREADS * squares.sqrt();
        if sum + spread < below {
            low = Some(logit);
        }
        if sum <= below {
            middle = Some(logit);
        }
        if sum - spread > below {
            high = Some(logit);
            break;
        }
    }
    let span_of = |logit: f32| tied(softmax, softmax.score(logit));
    let all = (f32::MIN, None);
    Guess {
        span: (low.map_or(f32::MIN, |low| span_of(low).0), high.and_then(|high| span_of(high).1)),
        middle: middle.or(high).map_or(all, span_of),
    }
}
