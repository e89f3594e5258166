//! Wire types of Duffy's API: requests, replies, errors.
