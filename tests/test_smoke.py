from sqlalchemy import text
from catlog_scrapy.store import catalogs, claims, attempts, publishing, results
import orjson


def sql(e, q, **k):
    with e.begin() as c:
        r = c.execute(text(q), k)
        return [dict(x) for x in r.mappings()] if r.returns_rows else None


def test_smoke(engine):
    sql(engine, "insert into catlog.provider(name,max_running) values('p',2)")
    sql(
        engine,
        "insert into catlog.catalog_scheme(provider_id,name,version) select id,'s',1 from catlog.provider",
    )
    sql(
        engine,
        "insert into catlog.catalog_scheme_operation(scheme_id,name,spider) select id,'o','sp' from catlog.catalog_scheme",
    )
    sql(
        engine,
        "insert into catlog.kind(operation_id,name,key,fields) select id,'things','[\"id\"]','[]' from catlog.catalog_scheme_operation",
    )
    sql(
        engine,
        "create table catlog.record_things partition of catlog.record for values in ('things')",
    )

    def load(data, done=True):
        cid = catalogs.create(engine, "p", "s")
        assert catalogs.start_waiting(engine) == 1
        [c] = claims.claim(engine, "n")
        assert claims.heartbeat(engine, [c.attempt]) == {c.attempt: "go"}
        lines = b"".join(
            f"{c.attempt.instance}\t{c.attempt.number}\t{i}\tthings\t{k}\t".encode()
            + orjson.dumps({"id": k, "v": v})
            + b"\n"
            for i, (k, v) in enumerate(data)
        )
        results.copy_batch(engine, lines)
        assert attempts.complete(engine, c.attempt, attempts.Report(accepted=len(data))) == "done"
        assert publishing.publish_next(engine) == cid
        return sql(engine, "select state,published,error from catlog.catalog where id=:i", i=cid)[0]

    print(load([("a", 1), ("b", 2), ("c", 3)]))
    print(load([("a", 1), ("b", 5), ("d", 3), ("b", 6)]))
    print(load([("x", 1)]))
    print(sql(engine, "select key,data,removed_at from catlog.record"))
    print(sql(engine, "select * from catlog.record_version"))
