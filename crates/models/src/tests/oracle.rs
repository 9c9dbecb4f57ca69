//! Both families once more, in `f64` and plain loops over the stored tensors, without kernels, pages or packing.

use serde_json::{Value, json};
use tensor::{Dtype, Isa, KvArena, PAGE_TOKENS};

use super::folder::{Folder, Random, VOCABULARY};
use crate::Batch;

type Rows = Vec<Vec<f64>>;

impl Folder {
    fn values(&self, name: &str) -> Vec<f64> {
        self.tensors[name].values.iter().map(|value| f64::from(*value)).collect()
    }

    fn number(&self, key: &str) -> usize {
        self.config[key].as_u64().unwrap() as usize
    }

    /// `x Wᵀ + b` for a matrix stored `[out, in]`.
    fn linear(&self, x: &Rows, name: &str) -> Rows {
        let weight = self.values(&format!("{name}.weight"));
        let biased = self.tensors.contains_key(&format!("{name}.bias"));
        let [outputs, inputs] = self.tensors[&format!("{name}.weight")].shape[..] else { panic!("{name}") };
        let bias = if biased { self.values(&format!("{name}.bias")) } else { vec![0.0; outputs] };
        let one = |row: &Vec<f64>| {
            let product = |o: usize| dot(row, &weight[o * inputs..(o + 1) * inputs]);
            (0..outputs).map(|o| product(o) + bias[o]).collect()
        };
        x.iter().map(one).collect()
    }

    /// `x W + b` for a matrix stored `[in, out]`.
    fn conv1d(&self, x: &Rows, name: &str) -> Rows {
        let (weight, bias) = (self.values(&format!("{name}.weight")), self.values(&format!("{name}.bias")));
        let outputs = bias.len();
        let one = |row: &Vec<f64>| {
            let product =
                |o: usize| row.iter().enumerate().map(|(i, x)| x * weight[i * outputs + o]).sum::<f64>();
            (0..outputs).map(|o| product(o) + bias[o]).collect()
        };
        x.iter().map(one).collect()
    }

    fn layer_norm(&self, x: &Rows, name: &str) -> Rows {
        let (weight, bias) = (self.values(&format!("{name}.weight")), self.values(&format!("{name}.bias")));
        let one = |row: &Vec<f64>| {
            let mean = row.iter().sum::<f64>() / row.len() as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / row.len() as f64;
            let scaled = row.iter().map(|x| (x - mean) / (variance + 1e-5).sqrt());
            scaled.zip(&weight).zip(&bias).map(|((x, w), b)| x * w + b).collect()
        };
        x.iter().map(one).collect()
    }

    fn rms(&self, x: &[f64], name: &str) -> Vec<f64> {
        let mean = dot(x, x) / x.len() as f64;
        x.iter().zip(self.values(name)).map(|(x, w)| x / (mean + 1e-6).sqrt() * w).collect()
    }

    fn rms_rows(&self, x: &Rows, name: &str) -> Rows {
        x.iter().map(|row| self.rms(row, &format!("{name}.weight"))).collect()
    }

    fn embedded(&self, table: &str, ids: impl Iterator<Item = usize>, width: usize) -> Rows {
        let table = self.values(table);
        ids.map(|id| table[id * width..(id + 1) * width].to_vec()).collect()
    }

    fn gpt2_logits(&self, ids: &[u32], prefix: &str) -> Rows {
        let (hidden, heads) = (self.number("n_embd"), self.number("n_head"));
        let dim = hidden / heads;
        let tokens = self.embedded(&format!("{prefix}wte.weight"), ids.iter().map(|id| *id as usize), hidden);
        let mut x = add(&tokens, &self.embedded(&format!("{prefix}wpe.weight"), 0..ids.len(), hidden));
        for layer in 0..self.number("n_layer") {
            let at = format!("{prefix}h.{layer}");
            let qkv = self.conv1d(&self.layer_norm(&x, &format!("{at}.ln_1")), &format!("{at}.attn.c_attn"));
            let part =
                |p: usize| -> Rows { qkv.iter().map(|r| r[p * hidden..(p + 1) * hidden].to_vec()).collect() };
            let attended = attend([&part(0), &part(1), &part(2)], heads, heads, dim);
            x = add(&x, &self.conv1d(&attended, &format!("{at}.attn.c_proj")));
            let mut inner =
                self.conv1d(&self.layer_norm(&x, &format!("{at}.ln_2")), &format!("{at}.mlp.c_fc"));
            let root = (2.0 / std::f64::consts::PI).sqrt();
            let gelu = |x: f64| 0.5 * x * (1.0 + (root * (x + 0.044715 * x.powi(3))).tanh());
            inner.iter_mut().flatten().for_each(|x| *x = gelu(*x));
            x = add(&x, &self.conv1d(&inner, &format!("{at}.mlp.c_proj")));
        }
        let x = self.layer_norm(&x, &format!("{prefix}ln_f"));
        self.linear(&x, &format!("{prefix}wte"))
    }

    fn qwen3_logits(&self, ids: &[u32]) -> Rows {
        let [hidden, heads, kv, dim] =
            ["hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim"]
                .map(|key| self.number(key));
        let theta = self.config["rope_theta"].as_f64().unwrap();
        let mut x = self.embedded("model.embed_tokens.weight", ids.iter().map(|id| *id as usize), hidden);
        for layer in 0..self.number("num_hidden_layers") {
            let at = format!("model.layers.{layer}");
            let normed = self.rms_rows(&x, &format!("{at}.input_layernorm"));
            let heads_of = |name: &str, norm: &str| -> Rows {
                let rows = self.linear(&normed, &format!("{at}.self_attn.{name}_proj"));
                let turned = |(position, row): (usize, &Vec<f64>)| -> Vec<f64> {
                    let norm = format!("{at}.self_attn.{norm}.weight");
                    row.chunks(dim).flat_map(|head| rotate(&self.rms(head, &norm), position, theta)).collect()
                };
                rows.iter().enumerate().map(turned).collect()
            };
            let (q, k) = (heads_of("q", "q_norm"), heads_of("k", "k_norm"));
            let v = self.linear(&normed, &format!("{at}.self_attn.v_proj"));
            let attended = attend([&q, &k, &v], heads, kv, dim);
            x = add(&x, &self.linear(&attended, &format!("{at}.self_attn.o_proj")));
            let normed = self.rms_rows(&x, &format!("{at}.post_attention_layernorm"));
            let mut inner = self.linear(&normed, &format!("{at}.mlp.gate_proj"));
            let up = self.linear(&normed, &format!("{at}.mlp.up_proj"));
            for (gate, up) in inner.iter_mut().flatten().zip(up.iter().flatten()) {
                *gate = *gate / (1.0 + (-*gate).exp()) * up;
            }
            x = add(&x, &self.linear(&inner, &format!("{at}.mlp.down_proj")));
        }
        let tied = self.config["tie_word_embeddings"] == true;
        let head = if tied { "model.embed_tokens" } else { "lm_head" };
        self.linear(&self.rms_rows(&x, "model.norm"), head)
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(a: &Rows, b: &Rows) -> Rows {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect()).collect()
}

fn rotate(head: &[f64], position: usize, theta: f64) -> Vec<f64> {
    let half = head.len() / 2;
    let angle = |j: usize| position as f64 * theta.powf(-2.0 * j as f64 / head.len() as f64);
    let first = (0..half).map(|j| head[j] * angle(j).cos() - head[j + half] * angle(j).sin());
    let second = (0..half).map(|j| head[j + half] * angle(j).cos() + head[j] * angle(j).sin());
    first.chain(second).collect()
}

fn attend([q, k, v]: [&Rows; 3], heads: usize, kv: usize, dim: usize) -> Rows {
    let one = |position: usize, head: usize| -> Vec<f64> {
        let shared = head / (heads / kv);
        let query = &q[position][head * dim..(head + 1) * dim];
        let of = |rows: &Rows, at: usize| rows[at][shared * dim..(shared + 1) * dim].to_vec();
        let scores: Vec<f64> =
            (0..=position).map(|at| dot(query, &of(k, at)) / (dim as f64).sqrt()).collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - top).exp()).collect();
        let total: f64 = weights.iter().sum();
        (0..dim)
            .map(|d| weights.iter().enumerate().map(|(at, w)| w * of(v, at)[d]).sum::<f64>() / total)
            .collect()
    };
    (0..q.len()).map(|position| (0..heads).flat_map(|head| one(position, head)).collect()).collect()
}

/// Runs the folder's model on one sequence and compares every logit, relative to the largest of them.
fn check(folder: &Folder, expected: &Rows, ids: &[u32]) {
    let largest = expected.iter().flatten().fold(1.0, |largest: f64, logit| largest.max(logit.abs()));
    for (dtype, tolerance) in [(Dtype::F32, 1e-5), (Dtype::Bf16, 2e-2)] {
        for isa in Isa::available() {
            let mut loaded = folder.load(Some(dtype), isa, 1).unwrap();
            let shape = loaded.model.shape();
            let mut kv = KvArena::new(shape.kv, 4).unwrap();
            let mut batch = Batch::default();
            let pages: Vec<u32> = (0..ids.len().div_ceil(PAGE_TOKENS) as u32).rev().collect();
            batch.push(ids, 0, &pages);
            batch.outputs.extend(0..ids.len() as u32);
            let logits = loaded.model.forward(&batch, &mut kv).logits;
            assert_eq!(logits.len(), ids.len() * VOCABULARY);
            let worst = logits.iter().zip(expected.iter().flatten());
            let worst =
                worst.map(|(found, expected)| (f64::from(*found) - expected).abs()).fold(0.0, f64::max);
            assert!(
                worst <= tolerance * largest,
                "{isa} {dtype}: off by {worst} of {largest}: {}",
                folder.config
            );
        }
    }
}

fn ids(count: usize, seed: u64) -> Vec<u32> {
    let mut random = Random(seed);
    (0..count).map(|_| random.below(VOCABULARY) as u32).collect()
}

#[test]
fn gpt2_agrees_with_the_oracle() {
    for (seed, (hidden, heads, prefix)) in
        [(24, 4, ""), (21, 3, "transformer."), (40, 1, "")].into_iter().enumerate()
    {
        let folder = Folder::gpt2(hidden, heads, prefix, seed as u64);
        let ids = ids(37 + seed, 7);
        check(&folder, &folder.gpt2_logits(&ids, prefix), &ids);
    }
}

#[test]
fn qwen3_agrees_with_the_oracle() {
    let shapes: [([usize; 4], Value); 4] = [
        ([24, 4, 2, 8], json!({"tie_word_embeddings": true})),
        ([20, 5, 1, 6], json!({"tie_word_embeddings": false})),
        ([18, 2, 2, 34], json!({"attention_bias": true})),
        ([16, 6, 3, 2], json!({"rope_theta": 1e6, "tie_word_embeddings": true, "attention_bias": true})),
    ];
    for (seed, (shape, settings)) in shapes.into_iter().enumerate() {
        let folder = Folder::qwen3(shape, settings, seed as u64);
        let ids = ids(40 - seed, 9);
        check(&folder, &folder.qwen3_logits(&ids), &ids);
    }
}
