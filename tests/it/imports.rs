//! The graph of imports between the files of `src`, read from their syntax.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use syn::visit::Visit;

/// A file as a module's path below the crate: `["engine", "cpu", "kernel"]`.
pub(crate) type Module = Vec<String>;

/// Which files each file imports from.
pub(crate) type Imports = BTreeMap<Module, BTreeSet<Module>>;

/// What one file says.
#[derive(Default)]
struct File {
    /// Paths that it uses, as written.
    uses: Vec<Vec<String>>,
    /// Names that others can take from it, and where they come from.
    reexports: BTreeMap<String, Vec<String>>,
    /// Modules of tests, which are files of their own.
    tests: Vec<String>,
    /// A `mod.rs` hands names on; that makes it no user of them.
    is_room: bool,
}

/// The imports between files of the crate, through `pub use` to the file that has the name. Tests are
/// left out: they may look anywhere.
pub(crate) fn imports(src: &Path) -> Imports {
    let mut files: BTreeMap<Module, File> = BTreeMap::new();
    for entry in walkdir::WalkDir::new(src).into_iter().map(|entry| entry.unwrap()) {
        let path = entry.path().strip_prefix(src).unwrap().with_extension("");
        let mut module: Module =
            path.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        let is_rust = entry.path().extension().is_some_and(|extension| extension == "rs");
        if !is_rust || module == ["main"] {
            continue;
        }
        let is_room = module.last().is_some_and(|name| name == "mod");
        if is_room || module == ["lib"] {
            module.pop();
        }
        let mut file = File { is_room, ..File::default() };
        file.visit_file(&syn::parse_file(&fs::read_to_string(entry.path()).unwrap()).unwrap());
        files.insert(module, file);
    }
    let tests: Vec<Module> = files
        .iter()
        .flat_map(|(module, file)| file.tests.iter().map(|test| below(module, test)))
        .collect();
    files.retain(|module, _| !tests.iter().any(|test| module.starts_with(test)));
    let mut imports = Imports::new();
    for (module, file) in &files {
        let found = file.uses.iter().filter_map(|path| resolve(&files, module, path, 0));
        let found = found.filter(|used| used != module && !used.is_empty());
        imports.insert(module.clone(), found.collect());
    }
    imports
}

fn below(module: &[String], name: &str) -> Module {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

/// The file that has what `path` names, seen from `module`; `None` for other crates.
fn resolve(
    files: &BTreeMap<Module, File>,
    module: &[String],
    path: &[String],
    depth: usize,
) -> Option<Module> {
    assert!(depth < 20, "`pub use` in a circle: {path:?}");
    let mut rest = path.iter().peekable();
    let mut place: Module = match path.first()?.as_str() {
        "crate" => Module::new(),
        "self" | "super" => module.to_vec(),
        name if files.contains_key(&below(module, name)) => module.to_vec(),
        _ => return None,
    };
    while let Some(word) = rest.next_if(|word| ["crate", "self", "super"].contains(&word.as_str()))
    {
        if word == "super" {
            place.pop();
        }
    }
    while let Some(name) = rest.next() {
        let inner = below(&place, name);
        if files.contains_key(&inner) {
            place = inner;
            continue;
        }
        if let Some(origin) = files.get(&place).and_then(|file| file.reexports.get(name)) {
            let path: Vec<String> = origin.iter().chain(rest).cloned().collect();
            return resolve(files, &place, &path, depth + 1);
        }
        break;
    }
    Some(place)
}

/// Groups of modules that reach each other, as `a::one a::two`.
pub(crate) fn circles(imports: &Imports) -> Vec<String> {
    let reached = |start: &Module| {
        let mut reached = BTreeSet::new();
        let mut open = vec![start];
        while let Some(module) = open.pop() {
            for next in imports.get(module).into_iter().flatten() {
                if reached.insert(next) {
                    open.push(next);
                }
            }
        }
        reached
    };
    let reach: BTreeMap<&Module, BTreeSet<&Module>> =
        imports.keys().map(|module| (module, reached(module))).collect();
    let mut circles = BTreeSet::new();
    for (module, reached) in &reach {
        if reached.contains(module) {
            let back = reached
                .iter()
                .filter(|other| reach.get(**other).is_some_and(|reached| reached.contains(module)));
            let back: Vec<String> = back.map(|module| module.join("::")).collect();
            circles.insert(back.join(" "));
        }
    }
    circles.into_iter().collect()
}

/// The imports between rooms: files that lie in one folder of a floor are one.
pub(crate) fn between_rooms(imports: &Imports, folders: &BTreeSet<Module>) -> Imports {
    let room = |module: &Module| match module.get(..2) {
        Some(room) if folders.contains(room) => room.to_vec(),
        _ => module.clone(),
    };
    let mut rooms = Imports::new();
    for (module, used) in imports {
        let from = room(module);
        let used = used.iter().map(room).filter(|to| *to != from);
        rooms.entry(from.clone()).or_default().extend(used);
    }
    rooms
}

/// Whether one of the attributes makes its item a part of the tests.
fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| {
                list.tokens.to_string().split(|c: char| !c.is_alphanumeric()).any(|w| w == "test")
            })
    })
}

impl File {
    /// Every path of a `use` tree, with the name that it has here.
    fn expand(tree: &syn::UseTree, path: &[String], found: &mut Vec<(String, Vec<String>)>) {
        match tree {
            syn::UseTree::Path(step) => {
                File::expand(&step.tree, &below(path, &step.ident.to_string()), found);
            }
            syn::UseTree::Name(name) if name.ident == "self" => {
                found.push((path.last().unwrap().clone(), path.to_vec()));
            }
            syn::UseTree::Name(name) => {
                let name = name.ident.to_string();
                found.push((name.clone(), below(path, &name)));
            }
            syn::UseTree::Rename(renamed) => {
                let path = if renamed.ident == "self" {
                    path.to_vec()
                } else {
                    below(path, &renamed.ident.to_string())
                };
                found.push((renamed.rename.to_string(), path));
            }
            syn::UseTree::Glob(_) => found.push(("*".to_owned(), path.to_vec())),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| File::expand(tree, path, found));
            }
        }
    }
}

impl<'ast> Visit<'ast> for File {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let mut found = Vec::new();
        File::expand(&item.tree, &[], &mut found);
        let handed_on = !matches!(item.vis, syn::Visibility::Inherited);
        for (name, path) in found.into_iter().filter(|_| !is_test(&item.attrs)) {
            if !(handed_on && self.is_room) {
                self.uses.push(path.clone());
            }
            if handed_on {
                self.reexports.insert(name, path);
            }
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            syn::visit::visit_item_mod(self, item);
        } else if item.content.is_none() {
            self.tests.push(item.ident.to_string());
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test(&item.attrs) {
            syn::visit::visit_item_fn(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            self.uses.push(path.segments.iter().map(|part| part.ident.to_string()).collect());
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        // What is in a macro is words only; a path in it is read as one where it says `crate`.
        let text = item.tokens.to_string().replace(' ', "");
        for path in text.split("crate::").skip(1) {
            let path = path.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).next();
            let words = path.unwrap_or_default().split("::").map(str::to_owned);
            self.uses.push(["crate".to_owned()].into_iter().chain(words).collect());
        }
    }
}

#[test]
fn a_circle_is_found_through_names_that_are_handed_on() {
    let src = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = src.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("lib.rs", "mod a; mod b;");
    write("a/mod.rs", "mod one; mod two; pub use one::One; pub use two::{Two as Second};");
    write("a/one.rs", "use crate::a::Second; pub struct One;");
    write("a/two.rs", "pub struct Two; #[cfg(test)] mod tests { use crate::a::One; }");
    write("b.rs", "fn f() { assert!(true, \"{}\", crate::a::One::N) }");
    let module = |path: &str| path.split("::").map(str::to_owned).collect::<Module>();
    let found = imports(src.path());
    assert_eq!(found[&module("b")], BTreeSet::from([module("a::one")]));
    assert_eq!(found[&module("a::one")], BTreeSet::from([module("a::two")]));
    assert!(circles(&found).is_empty());
    write("a/two.rs", "use super::One; pub struct Two;");
    let found = imports(src.path());
    assert_eq!(circles(&found), ["a::one a::two"]);
    let room = between_rooms(&found, &BTreeSet::from([module("x::y")]));
    assert_eq!(circles(&room).len(), 1);
}
