//! Duffy's server: database, lifecycle, nodes, worker, web API.
