-- Retired nodes and sessions with their links and four events each, as years of use leave them. Variables: `count`; `events`, which only
-- our database has.
set synchronous_commit = off;
insert into nodes (hostname, ipaddr, state, reusable, data, pool, created_at, retired_at) select 'old'||g, '10.0.'||(g/250%250)||'.'||(g%250), 'done', false, '{"provision":{"hostname":"old","machine":"m1"}}', 'simulated', now()-interval '1 year', now()-interval '1 year' from generate_series(1, :count) g;
insert into sessions (tenant_id, expires_at, data, created_at, retired_at) select 1, now()-interval '1 year', '{"nodes_specs":[{"pool":"simulated","quantity":1}]}', now()-interval '1 year', now()-interval '1 year' from generate_series(1, :count) g;
insert into sessions_nodes (session_id, node_id, pool, data) select s.id, n.id, 'simulated', '{}' from (select id, row_number() over (order by id) r from sessions where retired_at < now()-interval '300 days') s join (select id, row_number() over (order by id) r from nodes where retired_at < now()-interval '300 days') n using (r);
\if :events
insert into events (created_at, node_id, session_id, tenant_id, pool, from_state, to_state, cause, actor) select now()-interval '1 year', sn.node_id, sn.session_id, 1, sn.pool, 'ready', 'deployed', c, 'worker vm 1' from sessions_nodes sn, unnest(array['reserved','deployed','retired','deprovisioned']) c;
\endif
vacuum analyze;
checkpoint;
