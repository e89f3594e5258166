"""Reads and writes a database through the models of the Python original. Argument: an asynchronous SQLAlchemy URL.

Prints the data as JSON. Then it adds a tenant, a node and a session, retires session 1, and sets node 28 to ready.
"""

import asyncio
import datetime
import json
import sys
import uuid

from duffy.configuration import config

config["database"] = {"sqlalchemy": {"sync_url": sys.argv[1], "async_url": sys.argv[1]}}
config["defaults"] = {"session-lifetime": "6h", "session-lifetime-max": "12h", "node-quota": 10}

from duffy.database import async_session_maker, init_async_model  # noqa: E402
from duffy.database.model import Node, Session, SessionNode, Tenant  # noqa: E402
from sqlalchemy import select  # noqa: E402
from sqlalchemy.orm import selectinload  # noqa: E402


async def main():
    await init_async_model()
    async with async_session_maker() as db, db.begin():
        nodes = (await db.execute(select(Node).order_by(Node.id))).scalars().all()
        tenants = (await db.execute(select(Tenant).order_by(Tenant.id))).scalars().all()
        sessions = (
            (await db.execute(select(Session).order_by(Session.id).options(selectinload(Session.session_nodes))))
            .scalars()
            .all()
        )
        read = {
            "nodes": [[n.id, n.state.value, n.hostname, n.created_at.isoformat(), n.data] for n in nodes],
            "tenants": [[t.id, t.name, t.is_admin, str(t.session_lifetime)] for t in tenants],
            "sessions": [[s.id, s.active, s.expires_at.isoformat(), len(s.session_nodes)] for s in sessions],
        }
        now = datetime.datetime.now(datetime.timezone.utc)
        by_id = {node.id: node for node in nodes}
        by_id[28].state = "ready"
        by_id[28].pool = "pool"
        sessions[0].active = False
        tenant = Tenant(
            name="python",
            api_key=uuid.UUID("11111111-2222-4333-8444-555555555555"),
            ssh_key="key",
            session_lifetime=datetime.timedelta(days=1, milliseconds=5),
        )
        node = Node(hostname="python.example.org", ipaddr="192.0.2.77", state="deployed", pool="pool", data={"b": 1, "a": 2})
        db.add_all([tenant, node])
        await db.flush()
        session = Session(tenant_id=tenant.id, expires_at=now + datetime.timedelta(hours=1), data={"nodes_specs": []})
        db.add(session)
        await db.flush()
        db.add(SessionNode(session=session, node=node, pool="pool", data=node.data))
    print(json.dumps(read))


asyncio.run(main())
