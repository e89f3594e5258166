//! Configurations: any text loads or is refused with a reason, a printed configuration loads with the same values, and templates
//! render or are refused.
#![no_main]

use duffy_config::{load_text, render_template, yaml};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

/// Renders each text in a tree as a template, with the top level of the tree as the variables.
fn render_all(value: &Value, values: &Map<String, Value>) {
    match value {
        // A loop may run for as long as the operator wants.
        Value::String(text) if !text.contains("{%") => {
            if let Err(error) = render_template(text, values) {
                assert!(!error.to_string().contains('\n'), "{error}");
            }
        }
        Value::Array(items) => items.iter().for_each(|item| render_all(item, values)),
        Value::Object(map) => map.values().for_each(|item| render_all(item, values)),
        _ => {}
    }
}

fuzz_target!(|text: &str| {
    if let Ok(documents) = yaml::parse(text, "fuzz.yaml") {
        for document in &documents {
            let printed = yaml::dump(document);
            assert_eq!(
                yaml::parse(&printed, "fuzz.yaml").as_deref(),
                Ok(std::slice::from_ref(document)),
                "{printed}"
            );
            if let Value::Object(map) = document {
                render_all(document, map);
            }
        }
    }
    match load_text(text, "fuzz.yaml") {
        Ok(config) => {
            let printed = yaml::dump(&config.tree);
            let again = load_text(&printed, "printed.yaml");
            let tree = again
                .map(|again| again.tree)
                .map_err(|error| error.to_string());
            assert_eq!(tree, Ok(config.tree), "{printed}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
