//! What clients ask, drawn from a seed.

use serde_json::{Value, json};

/// Tenants by name, with their weights; the name is the key, too.
pub(crate) const TENANTS: [(&str, u32); 3] = [("alice", 1), ("bob", 1), ("carol", 2)];
/// Requests of a hundred that their clients walk away from.
const CANCELLED: u64 = 20;
/// Requests of a hundred that no server can answer.
const MALFORMED: u64 = 5;

/// How urgent a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    High,
    Normal,
    Low,
}

/// What a client asks and does.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) tenant: usize,
    pub(crate) tier: Tier,
    /// What is asked.
    pub(crate) path: &'static str,
    /// The body of the request.
    pub(crate) body: String,
    /// It goes away after so many pieces of the reply.
    pub(crate) leaves_after: Option<usize>,
    /// The server has to refuse it as malformed.
    pub(crate) is_malformed: bool,
}

impl Wish {
    /// Its tenant's key.
    pub(crate) fn key(&self) -> &'static str {
        TENANTS[self.tenant].0
    }
}

/// What clients ask, in order.
pub(crate) struct Mix {
    wishes: Vec<Wish>,
}

impl Mix {
    /// So many requests of all tenants, as many of each as its weight says.
    pub(crate) fn new(seed: u64, count: usize) -> Self {
        let mut chance = Chance(seed);
        let weights: u32 = TENANTS.iter().map(|(_, weight)| weight).sum();
        let wish = |_| {
            let mut point = chance.below(u64::from(weights)) as u32;
            let tenant = TENANTS.iter().position(|(_, weight)| {
                let is_here = point < *weight;
                point = point.saturating_sub(*weight);
                is_here
            });
            draw(&mut chance, tenant.unwrap_or(0))
        };
        Self { wishes: (0..count).map(wish).collect() }
    }

    /// These requests.
    pub(crate) fn of(wishes: Vec<Wish>) -> Self {
        Self { wishes }
    }

    /// The same with clients that ask properly and stay.
    pub(crate) fn of_whole_replies(mut self) -> Self {
        self.wishes.retain(|wish| !wish.is_malformed);
        self.wishes.iter_mut().for_each(|wish| wish.leaves_after = None);
        self
    }

    /// Those of one tenant.
    pub(crate) fn of_tenant(&self, tenant: usize) -> Self {
        Self { wishes: self.wishes.iter().filter(|wish| wish.tenant == tenant).cloned().collect() }
    }

    /// What is asked.
    pub(crate) fn wishes(&self) -> &[Wish] {
        &self.wishes
    }
}

fn draw(chance: &mut Chance, tenant: usize) -> Wish {
    let tier = match chance.below(10) {
        0 => Tier::High,
        1 | 2 => Tier::Low,
        _ => Tier::Normal,
    };
    let words: Vec<String> = (0..4 + chance.below(60)).map(|_| format!("w{}", chance.below(9999))).collect();
    let max_tokens = 8 + chance.below(56);
    let body = json!({
        "prompt": words.join(" "), "max_tokens": max_tokens, "temperature": 1, "ignore_eos": true, "stream": true,
        "stream_options": {"include_usage": true}, "seed": chance.below(1 << 40),
        "priority": match tier { Tier::High => -1, Tier::Normal => 0, Tier::Low => 1 },
    });
    let is_malformed = chance.below(100) < MALFORMED;
    let leaves = chance.below(100) < CANCELLED;
    let leaves_after = leaves.then(|| chance.below(max_tokens) as usize);
    let body = if is_malformed { malformed(chance, body) } else { body.to_string() };
    Wish { tenant, tier, path: "/v1/completions", body, leaves_after, is_malformed }
}

/// A body that cannot be answered.
fn malformed(chance: &mut Chance, mut body: Value) -> String {
    match chance.below(5) {
        0 => return body.to_string().split_at(20).0.to_owned(),
        1 => body["max_tokens"] = json!("many"),
        2 => body["temperature"] = json!(-3),
        3 => body["model"] = json!("no-such-model"),
        _ => body["max_tokens"] = json!(1_000_000),
    }
    body.to_string()
}

/// The generator of Steele, Lea and Flood (2014).
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_is_as_it_should_be_and_the_same_for_the_same_seed() {
        let mix = Mix::new(3, 4000);
        let count = |is: fn(&Wish) -> bool| mix.wishes().iter().filter(|wish| is(wish)).count();
        assert!((1900..2100).contains(&count(|wish| wish.tenant == 2)));
        assert!((700..900).contains(&count(|wish| wish.leaves_after.is_some())));
        assert!((150..250).contains(&count(|wish| wish.is_malformed)));
        assert!((300..500).contains(&count(|wish| wish.tier == Tier::High)));
        let bodies = |mix: &Mix| mix.wishes().iter().map(|wish| wish.body.clone()).collect::<Vec<_>>();
        assert_eq!(bodies(&mix), bodies(&Mix::new(3, 4000)));
        assert_ne!(bodies(&mix), bodies(&Mix::new(4, 4000)));
    }
}
