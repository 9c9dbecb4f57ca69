//! Every rule on small trees, and all of them on this repository.

use super::*;

#[test]
fn the_repository_keeps_the_rules() {
    let tree = Tree::read().unwrap();
    assert!(tree.text("xtask/src/tidy.rs").is_some(), "the repository is not where it is looked for");
    let found: Vec<String> = offences(&tree).iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// A tree of files given as path and content.
fn tree(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::default();
    for (path, content) in files {
        let folders = path.match_indices('/').map(|(at, _)| path[..at].to_owned());
        tree.paths.extend(folders);
        tree.paths.push((*path).to_owned());
        tree.texts.push(Text { path: (*path).to_owned(), content: (*content).to_owned() });
    }
    tree.paths.sort();
    tree.paths.dedup();
    tree
}

/// Checks that a rule finds just the offences that begin like `expected`, in order.
fn check(rule: Rule, files: &[(&str, &str)], expected: &[&str]) {
    let found: Vec<String> = rule(&tree(files)).iter().map(ToString::to_string).collect();
    let agrees = found.len() == expected.len() && found.iter().zip(expected).all(|(f, e)| f.contains(e));
    assert!(agrees, "found {found:#?}\nexpected {expected:#?}");
}

#[test]
fn texts() {
    check(
        text::every_source_says_what_it_is,
        &[("a.rs", "//! A.\n"), ("b.rs", "fn b() {}\n")],
        &["b.rs: begin"],
    );
    let (long, longer) = ("\n".repeat(600), "\n".repeat(601));
    check(text::lengths, &[("a.rs", &long), ("b.py", &longer), ("c.md", &longer)], &["b.py: more than 600"]);
    check(text::no_stray_spaces, &[("a.rs", "x \ny\t\nz\n")], &["a.rs:1: ", "a.rs:2: "]);
    check(
        text::no_stray_spaces,
        &[("a.md", "x"), ("b.md", "x\n\n"), ("c.md", "x\r\n")],
        &["a.md", "b.md", "c.md:1"],
    );
    check(text::no_stray_spaces, &[("x/test_data/a.md", "x "), ("a.txt", "x "), ("a.rs", "")], &[]);
    let left = concat!("// TO", "DO later\nlet MYTO", "DO = 1;\n// FIX", "ME\n");
    check(text::nothing_unfinished, &[("a.rs", left)], &["a.rs:1", "a.rs:3"]);
    let macros = concat!("to", "do!()\n  unimple", "mented!();\n#[ig", "nore]\n");
    check(text::nothing_unfinished, &[("a.rs", macros)], &["a.rs:1", "a.rs:2", "a.rs:3"]);
    check(text::no_machine_paths, &[("a.md", concat!("see /wo", "rk/main\n"))], &["a.md:1"]);
    check(text::architecture_is_short, &[("ARCHITECTURE.md", &"\n".repeat(301))], &["more than 300"]);
    check(text::architecture_is_short, &[("ARCHITECTURE.md", &"\n".repeat(300))], &[]);
}

#[test]
fn names_of_files_and_types() {
    let files = [
        ("a/utils.rs", ""),
        ("core/b.rs", ""),
        ("cache_manager.py", ""),
        ("corpus.py", ""),
        ("base64.rs", ""),
    ];
    check(names::files, &files, &["a/utils.rs", "cache_manager.py", "core: "]);
    let source = "//! struct XManager\nstruct CacheManager;\nstruct Managers;\nlet x = \"enum YHandler\";\nenum YHandler {}\n";
    check(names::types, &[("a.rs", source)], &["a.rs:2: `CacheManager`", "a.rs:5: `YHandler`"]);
    check(names::types, &[("a.py", "class PageHelper:\n")], &["a.py:1: `PageHelper`"]);
}

#[test]
fn links_lead_somewhere() {
    let page =
        "# One two, `three`!\n[a](b.md) [c](../docs/b.md#heading) [d](#one-two-three) [e](https://x.y/z)\n";
    let target = "# Heading\n```\n# not a heading\n[x](nowhere)\n```\n`[y](nowhere)`\n";
    check(links::resolve, &[("docs/a.md", page), ("docs/b.md", target)], &[]);
    let broken = "[a](c.md)\n[b](b.md#not-a-heading)\n[c](../../up.md)\n![d](#none)\n[e](../docs)\n";
    let expected = ["a.md:1: the link to `c.md`", "a.md:2: ", "a.md:4: "];
    check(links::resolve, &[("docs/a.md", broken), ("docs/b.md", target)], &expected);
}

#[test]
fn tables_are_complete() {
    let table =
        "//! x\nmod fifo;\nmod fair;\npub const POLICIES: [P; 1] = [fifo::POLICY];\n// fair::POLICY\n";
    let folder = "crates/flow/src/queue/policy";
    let path = |name: &str| format!("{folder}/{name}");
    let (fifo, fair, lost, tests) = (path("fifo.rs"), path("fair.rs"), path("lost.rs"), path("tests.rs"));
    let nested = path("fair/tree.rs");
    let table_path = format!("{folder}.rs");
    let files =
        [(table_path.as_str(), table), (&fifo, ""), (&fair, ""), (&lost, ""), (&tests, ""), (&nested, "")];
    check(registries::are_complete, &files, &["fair.rs: ", "lost.rs: "]);
    check(registries::are_complete, &files[1..2], &["policy: the table"]);
}

#[test]
fn trust_has_its_places() {
    let source =
        "//! unsafe\n// unsafe\nlet s = \"unsafe\"; let c = '\"'; unsafe {}\n/* unsafe */ unsafe_op();\n";
    let files = [("crates/tensor/src/pool/gate.rs", source), ("crates/tensor/src/pooled.rs", source)];
    check(trust::unsafe_is_where_it_belongs, &files, &["pooled.rs:3: "]);
    let source = "std::env::var(\"X\")\nenv::var_os(\"UPDATE_EXPECT\")\n// env::var(\nstd::env::consts::OS\n";
    let files = [("crates/tidegate/src/settings/layers.rs", source), ("crates/engine/src/a.rs", source)];
    check(trust::the_environment_is_read_in_one_place, &files, &["a.rs:1: "]);
}

#[test]
fn code_is_told_from_comments_and_literals() {
    let check = |source: &str, expected: &str| {
        let words: Vec<String> = code::words_of_code(source).map(|(_, word)| word).collect();
        assert_eq!(words.join(" "), expected, "{source}");
    };
    check("a /* b /* c */ d */ e // f\ng", "a e g");
    check(r##"a "b \" c" d r#"e " f"# g b'h' br"i" j"##, "a d g b j");
    check("fn a<'b>(c: &'b str) -> 'd' { '\\'' e }", "fn a b c b str e");
    check("bar\"x\" r2 br broken", "bar r2 br broken");
    check("\"never closed", "");
}
