//! Parses a Rust file for the rules: the paths that it names and its string literals, each with its line.

use std::collections::BTreeMap;

use proc_macro2::{TokenStream, TokenTree};
use syn::parse::discouraged::Speculative;
use syn::parse::{ParseStream, Parser};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, ExprPath, Lit, LitStr, Meta, UseTree, Visibility};

/// A parsed file of the workspace.
pub struct Source {
    /// Its path from the root of the checkout, with `/`.
    pub path: String,
    /// Its module in the crate: `["db", "nodes"]`.
    pub module: Vec<String>,
    /// All paths in the code, with `use` groups expanded.
    pub names: Vec<Name>,
    /// The declarations of `use` outside tests: the local name, and the path as in `names`.
    pub uses: BTreeMap<String, Vec<String>>,
    /// All string literals outside tests, with their lines.
    pub strings: Vec<(usize, String)>,
    /// The lines of attributes that ignore a test.
    pub ignored: Vec<usize>,
    /// The number of lines before the first test module.
    pub lines: usize,
    /// The first line.
    pub first_line: String,
    in_test: bool,
    reexports: bool,
}

/// A path in the code.
pub struct Name {
    pub line: usize,
    pub in_test: bool,
    /// Whether it is in a `pub use`.
    pub reexported: bool,
    /// Its segments. Paths that begin with `crate`, `self` or `super` are resolved from the root: `["crate", "db", "Tx"]`.
    pub path: Vec<String>,
}

impl Source {
    /// Parses a file. `path` is relative to the root of the checkout.
    pub fn parse(path: &str, text: &str) -> Self {
        let file = syn::parse_file(text).unwrap_or_else(|error| panic!("{path}: {error}"));
        let inner = path.split_once("/src/").map_or("", |(_, inner)| inner);
        let module = inner.trim_end_matches(".rs").split('/');
        let mut source = Self {
            path: path.to_owned(),
            module: module
                .filter(|part| !["", "lib", "main", "mod"].contains(part))
                .map(str::to_owned)
                .collect(),
            names: Vec::new(),
            uses: BTreeMap::new(),
            strings: Vec::new(),
            ignored: Vec::new(),
            lines: text.lines().count(),
            first_line: text.lines().next().unwrap_or_default().to_owned(),
            in_test: is_test_file(path),
            reexports: false,
        };
        source.visit_file(&file);
        source
    }

    /// Adds a path to `names`.
    fn add_name(&mut self, line: usize, path: &[String]) -> &Name {
        let mut module = self.module.clone();
        let mut relative = path;
        while let [first, rest @ ..] = relative
            && is_keyword(first)
        {
            match first.as_str() {
                "crate" => module.clear(),
                "super" => _ = module.pop(),
                _ => {}
            }
            relative = rest;
        }
        let path = if relative.len() < path.len() {
            let root = ["crate".to_owned()].into_iter();
            root.chain(module).chain(relative.to_owned()).collect()
        } else {
            path.to_owned()
        };
        self.names.push(Name {
            line,
            in_test: self.in_test,
            reexported: self.reexports,
            path,
        });
        &self.names[self.names.len() - 1]
    }

    fn read_use(&mut self, tree: &UseTree, mut path: Vec<String>) {
        let local = match tree {
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.read_use(tree, path.clone());
                }
                return;
            }
            UseTree::Path(part) => {
                path.push(part.ident.to_string());
                return self.read_use(&part.tree, path);
            }
            UseTree::Name(name) => {
                if name.ident != "self" {
                    path.push(name.ident.to_string());
                }
                path.last().cloned()
            }
            UseTree::Rename(name) => {
                path.push(name.ident.to_string());
                Some(name.rename.to_string())
            }
            UseTree::Glob(_) => None,
        };
        let found = self.add_name(tree.span().start().line, &path);
        if let Some(local) = local
            && !found.in_test
        {
            let path = found.path.clone();
            self.uses.insert(local, path);
        }
    }

    /// Finds paths, strings and attributes in the arguments of a macro or an attribute.
    fn read_tokens(&mut self, tokens: TokenStream) {
        let read = |input: ParseStream| {
            while !input.is_empty() {
                let ahead = input.fork();
                if let Ok(attributes) = ahead.call(Attribute::parse_outer)
                    && !attributes.is_empty()
                {
                    input.advance_to(&ahead);
                    for attribute in &attributes {
                        self.visit_attribute(attribute);
                    }
                } else if let Ok(path) = ahead.parse::<ExprPath>() {
                    input.advance_to(&ahead);
                    self.visit_expr_path(&path);
                } else {
                    match input.parse()? {
                        TokenTree::Group(group) => self.read_tokens(group.stream()),
                        TokenTree::Literal(literal) => self.visit_lit(&Lit::new(literal)),
                        _ => {}
                    }
                }
            }
            Ok(())
        };
        read.parse2(tokens).unwrap();
    }
}

/// `#[cfg(test)]` on one of these nodes applies until the end of the node.
macro_rules! end_tests_after {
    ($($visit:ident: $node:ident,)*) => {
        $(fn $visit(&mut self, node: &syn::$node) {
            let in_test = self.in_test;
            visit::$visit(self, node);
            self.in_test = in_test;
        })*
    };
}

impl Visit<'_> for Source {
    end_tests_after! {
        visit_item: Item,
        visit_impl_item: ImplItem,
        visit_field: Field,
        visit_field_value: FieldValue,
        visit_stmt: Stmt,
    }

    fn visit_attribute(&mut self, attribute: &Attribute) {
        let line = attribute.span().start().line;
        let tokens = match &attribute.meta {
            Meta::List(list) => list.tokens.clone(),
            _ => TokenStream::new(),
        };
        let text = tokens.to_string();
        let words: Vec<&str> = text
            .split(|c: char| c != '_' && !c.is_alphanumeric())
            .collect();
        let is = |name| attribute.path().is_ident(name);
        if is("ignore") || is("cfg_attr") && words.contains(&"ignore") {
            self.ignored.push(line);
        }
        if is("cfg") && (text == "test" || text.starts_with("all (test ,")) {
            self.in_test = true;
            self.lines = self.lines.min(line - 1);
        }
        self.visit_path(attribute.path());
        self.read_tokens(tokens);
    }

    fn visit_item_mod(&mut self, node: &syn::ItemMod) {
        self.module.push(node.ident.to_string());
        visit::visit_item_mod(self, node);
        self.module.pop();
    }

    fn visit_item_use(&mut self, node: &syn::ItemUse) {
        for attribute in &node.attrs {
            self.visit_attribute(attribute);
        }
        self.reexports = !matches!(node.vis, Visibility::Inherited);
        self.read_use(&node.tree, Vec::new());
        self.reexports = false;
    }

    fn visit_path(&mut self, path: &syn::Path) {
        let parts = path.segments.iter().map(|part| part.ident.to_string());
        let parts: Vec<_> = parts.collect();
        // `self` names no item.
        if !parts.iter().all(|part| is_keyword(part)) {
            self.add_name(path.span().start().line, &parts);
        }
        visit::visit_path(self, path);
    }

    /// A visibility says who may use an item, and uses none.
    fn visit_visibility(&mut self, _: &Visibility) {}

    fn visit_macro(&mut self, node: &syn::Macro) {
        self.visit_path(&node.path);
        self.read_tokens(node.tokens.clone());
    }

    fn visit_lit_str(&mut self, text: &LitStr) {
        if !self.in_test {
            self.strings.push((text.span().start().line, text.value()));
        }
    }
}

fn is_keyword(part: &str) -> bool {
    ["crate", "self", "super"].contains(&part)
}

/// Whether the whole file is test code.
pub fn is_test_file(path: &str) -> bool {
    path.contains("/tests/")
        || path.contains("/benches/")
        || path.ends_with("/tests.rs")
        || path.ends_with("_tests.rs")
}
