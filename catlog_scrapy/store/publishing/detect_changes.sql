-- Merge what arrived into the current records; return the number of records by kind and change.
-- Parameters: fields of publishing.operations.PublishValues. The CTE `arrived` stands before this
-- text: with or without the sort that removes duplicate keys.
--
-- One pass over arrived and known records decides every change; the writes follow from it.
-- A record with a newer `as_of` stays as it is. JSON null in `data` means that the source has
-- deleted the record. An unknown key is stored as deleted, since an older load may still bring it.
-- A partial load has no high-water mark, so it stores its `as_of` with every key that it read.
-- New records are inserted in key order, so that their index grows at its end.
known AS (
    SELECT * FROM catlog.record WHERE provider_id = :provider AND kind = ANY(:kinds)),
verdict AS MATERIALIZED (
    SELECT coalesce(a.kind, k.kind) AS kind, coalesce(a.key, k.key) AS key,
        coalesce(nullif(a.data, 'null'), k.data) AS data, k.data AS former,
        k.updated_at AS since, nullif(a.data, 'null') IS NOT NULL AS was_read,
        CASE WHEN k.key IS NULL AND a.data = 'null' THEN 'deleted'
             WHEN k.key IS NULL THEN 'created'
             WHEN a.key IS NULL THEN 'removed'
             WHEN a.data = 'null' AND k.removed_at IS NULL THEN 'removed'
             WHEN a.data = 'null' THEN 'touched'
             WHEN k.removed_at IS NOT NULL THEN 'restored'
             WHEN a.data <> k.data THEN 'changed'
             ELSE 'touched' END AS change
    FROM arrived a FULL JOIN known k ON k.kind = a.kind AND k.key = a.key
    WHERE CASE
        WHEN k.key IS NULL THEN NOT :removes OR a.data IS DISTINCT FROM 'null'
        WHEN k.as_of > :as_of THEN false
        WHEN a.key IS NULL THEN :removes AND k.removed_at IS NULL
        WHEN :refreshes AND a.data IS NOT NULL THEN true
        WHEN a.data = 'null' AND k.removed_at IS NOT NULL
            THEN NOT :removes AND k.as_of < :as_of
        ELSE k.removed_at IS NOT NULL OR a.data <> k.data
            OR (NOT :removes AND k.as_of < :as_of) END),
versions AS (
    INSERT INTO catlog.record_version
        (provider_id, kind, key, valid_from, valid_to, data, change, catalog_id)
    SELECT :provider, kind, key, since, :now, former, change, :catalog
    FROM verdict WHERE change IN ('changed', 'removed')),
updated AS (
    UPDATE catlog.record r SET data = v.data, as_of = :as_of, scope_id = :scope,
        updated_at = CASE v.change WHEN 'touched' THEN r.updated_at ELSE :now END,
        removed_at = CASE v.change WHEN 'removed' THEN CAST(:now AS timestamptz)
            WHEN 'touched' THEN r.removed_at END,
        catalog_id = CASE v.change WHEN 'touched' THEN r.catalog_id ELSE :catalog END,
        read_at = CASE WHEN :refreshes AND v.was_read THEN :as_of ELSE r.read_at END
    FROM verdict v
    WHERE r.provider_id = :provider AND r.kind = v.kind AND r.key = v.key
      AND v.change NOT IN ('created', 'deleted')),
inserted AS (
    INSERT INTO catlog.record (provider_id, kind, key, scope_id, data, as_of, created_at,
        updated_at, removed_at, read_at, catalog_id)
    SELECT :provider, kind, key, :scope, coalesce(data, '{}'), :as_of, :now, :now,
        CASE change WHEN 'deleted' THEN CAST(:now AS timestamptz) END,
        CASE WHEN :refreshes THEN CAST(:as_of AS timestamptz) END, :catalog
    FROM verdict
    WHERE change = 'deleted' OR change = 'created' AND data IS NOT NULL ORDER BY kind, key)
SELECT kind, change, count(*) AS records,
    bool_or(data IS NULL AND change <> 'deleted') AS unknown
FROM verdict GROUP BY kind, change
