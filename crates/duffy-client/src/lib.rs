//! HTTP client of Duffy's API, a method per endpoint.
