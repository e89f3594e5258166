//! Duffy's configuration: YAML files to typed sections.
