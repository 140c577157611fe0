-- What: audit.seal() seals what was committed since it last ran; audit.drop_expired_partitions() lets whole months go.
-- Why: both only ever add to one chain, so that what is missing from it cannot be explained away.
-- Who: pg_cron, as the owner of the database. No API role may call either.

-- A change is sealed once it is committed, however long other transactions go on: sealed_through names those whose
-- changes may come later.
create or replace function audit.seal(
    p_max_changes bigint default 1000000,
    out changes bigint,
    out seals bigint,
    out complete boolean,
    out head bytea
)
language plpgsql
volatile
security invoker
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
    v_clock_may_be_set_back constant interval := interval '1 hour';
    v_changes_in_a_seal constant bigint := 50000;
    v_through pg_snapshot;
    v_oldest bigint;
    v_cluster bigint := audit.cluster_id();
    v_complete audit.seals;
    v_seal audit.seals;
    v_batch record;
begin
    if p_max_changes is null or p_max_changes < 1 then
        raise exception 'Cannot seal the audit trail: p_max_changes must be at least 1, received %', p_max_changes
            using errcode = '22023';
    end if;
    -- One run at a time. Only then is looked which transactions are over, and only then what they wrote.
    perform pg_advisory_xact_lock(hashtextextended('holdfast audit seals', 0));
    v_through := pg_current_snapshot();
    v_oldest := pg_snapshot_xmin(v_through)::text::bigint;
    if pg_current_xact_id_if_assigned() is not null then
        -- A snapshot does not name its own transaction among those that go on; it only never is below xmin.
        v_through := format('%1$s:%1$s:', v_oldest)::pg_snapshot;
    end if;

    select s.* into v_complete from audit.seals as s where s.complete order by s.link desc limit 1;
    select s.* into v_seal from audit.seals as s order by s.link desc limit 1;
    v_seal.transaction_id := txid_current();
    v_seal.sealed_at := now();
    v_seal.version := 1;
    changes := 0;
    seals := 0;
    complete := true;

    for v_batch in
        select
            b.month,
            range_agg(int8range(b.id, b.id, '[]')) as ids,
            min(b.occurred_at) as first_at,
            max(b.occurred_at) as last_at,
            max(b.transaction_id) as last_transaction,
            coalesce(
                range_agg(int8range(b.id, b.id, '[]')) filter (
                    where v_cluster = v_complete.cluster
                    and b.transaction_id > v_complete.transaction_id
                    and b.occurred_at < v_complete.sealed_at - v_clock_may_be_set_back
                ),
                '{}'
            ) as backdated_ids,
            max(max(b.next_transaction) filter (where b.nth = p_max_changes)) over () as next_transaction,
            row_number() over (order by b.month, b.batch) = count(*) over () as is_last
        from (
            select
                n.*,
                (row_number() over (partition by n.month order by n.id) - 1) / v_changes_in_a_seal as batch
            from (
                select
                    u.*,
                    row_number() over by_transaction as nth,
                    lead(u.transaction_id) over by_transaction as next_transaction
                from audit.unsealed_changes(p_max_changes + 1) as u
                window by_transaction as (order by u.transaction_id, u.id)
            ) as n
            where n.nth <= p_max_changes
        ) as b
        group by b.month, b.batch
        order by b.month, b.batch
    loop
        complete := v_batch.next_transaction is null;
        v_seal.month := v_batch.month;
        v_seal.change_ids := v_batch.ids;
        v_seal.first_at := v_batch.first_at;
        v_seal.last_at := v_batch.last_at;
        v_seal.last_transaction := v_batch.last_transaction;
        v_seal.backdated_ids := v_batch.backdated_ids;
        v_seal.retired_month := null;
        v_seal.greatest_id := greatest(v_seal.greatest_id, upper(v_batch.ids) - 1);
        select h.* into v_seal.change_count, v_seal.changes_hash, v_seal.row_digests
        from audit.hash_changes(v_batch.month, v_batch.ids) as h;

        -- A run that found more than it may seal has sealed the lowest transactions, unless it is on another server.
        v_seal.complete := v_batch.is_last and (complete or v_cluster = coalesce(v_complete.cluster, v_cluster));
        v_seal.cluster := coalesce(v_complete.cluster, v_cluster);
        v_seal.base_id := coalesce(v_complete.base_id, 0);
        v_seal.sealed_through := coalesce(v_complete.sealed_through, '3:3:');
        if v_seal.complete then
            if v_cluster <> v_complete.cluster then
                v_seal.cluster := v_cluster;
                v_seal.base_id := v_complete.greatest_id;
            end if;
            v_seal.sealed_through := v_through;
            if not complete then
                v_seal.sealed_through := format('%1$s:%1$s:', least(v_oldest, v_batch.next_transaction))::pg_snapshot;
            end if;
        end if;
        v_seal := audit.add_to_chain(v_seal);
        seals := seals + 1;
        changes := changes + v_seal.change_count;
    end loop;

    head := v_seal.hash;
    if seals > 0 then
        -- In the server's log it is out of reach of whoever is at home in the database.
        raise log 'audit: sealed % changes, % of % is link % with hash %',
            changes, v_seal.number, audit.month_name(v_seal.month), v_seal.link, encode(head, 'hex');
    end if;
end;
$$;

comment on function audit.seal(bigint) is
    'Seals what is committed and has no seal yet, at most p_max_changes of it, in batches of 50,000. Returns how much it '
    'sealed, whether that was all, and the hash of the newest seal, which it also writes to the server''s log. '
    'Runs take turns.';


-- The next seal after p_seal, which must be the newest: called under the lock of audit.seal() only.
create or replace function audit.add_to_chain(p_seal audit.seals)
returns audit.seals
language plpgsql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    p_seal.link := coalesce(p_seal.link, 0) + 1;
    p_seal.previous_hash := coalesce(p_seal.hash, decode(repeat('00', 32), 'hex'));
    p_seal.number := 1 + greatest(
        (select coalesce(max(s.number), 0) from audit.seals as s where s.month = p_seal.month),
        (select coalesce(max(r.last_number), 0) from audit.retired_months as r where r.month = p_seal.month)
    );
    p_seal.hash := audit.seal_hash(p_seal);
    insert into audit.seals select (p_seal).*;
    return p_seal;
end;
$$;

comment on function audit.add_to_chain(audit.seals) is
    'Numbers a seal as the one after that whose hash and link it bears, and stores it.';


-- What the seal about a retired month covers: that month's line.
create or replace function audit.retirement_hash(p_line audit.retired_months)
returns bytea
language sql
stable
security invoker
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set intervalstyle = 'postgres'
as $$
    select sha256(convert_to(
        json_build_array(
            p_line.noted_link, p_line.month, p_line.retired_at, p_line.retention, p_line.changes, p_line.last_number,
            encode(p_line.last_hash, 'hex'), p_line.links,
            (
                select json_agg(encode(h.hash, 'hex') order by h.nth)
                from unnest(p_line.link_hashes) with ordinality as h (hash, nth)
            )
        )::text,
        'UTF8'
    ))
$$;

comment on function audit.retirement_hash(audit.retired_months) is 'Over all columns of a line of audit.retired_months.';


create or replace function audit.retirement_problem()
returns text
language sql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select format(
        'The line about %s in audit.retired_months was altered, or slipped in, or deleted', audit.month_name(p.month)
    )
    from (
        select coalesce(s.retired_month, r.month) as month
        from audit.retired_months as r
        full join (select a.* from audit.seals as a where a.retired_month is not null) as s on s.link = r.noted_link
        where s.changes_hash is distinct from audit.retirement_hash(r)
            -- The seal about an old line may be of a month that is retired itself.
            and not (
                s.link is null
                and exists (select from audit.retired_months as later where later.links @> r.noted_link)
            )
    ) as p
    order by p.month
    limit 1
$$;

comment on function audit.retirement_problem() is
    'A sentence about the first retired month that is not as its seal says; null if all are.';


-- Leaves a line and a seal about it, then lets the seals of the month go.
create or replace function audit.retire_seals(p_month date, p_retention interval)
returns void
language plpgsql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_line audit.retired_months;
    v_seal audit.seals;
begin
    select s.* into v_seal from audit.seals as s order by s.link desc limit 1;
    v_line.noted_link := coalesce(v_seal.link, 0) + 1;
    v_line.month := p_month;
    v_line.retired_at := now();
    v_line.retention := p_retention;
    select
        coalesce(sum(s.change_count), 0),
        coalesce(max(s.number), 0),
        (array_agg(s.hash order by s.number desc))[1],
        coalesce(range_agg(int8range(s.link, s.link, '[]')), '{}')
    into v_line.changes, v_line.last_number, v_line.last_hash, v_line.links
    from audit.seals as s
    where s.month = p_month;
    v_line.link_hashes := array(
        select s.hash
        from unnest(v_line.links) as r (links)
        join audit.seals as s on s.link = upper(r.links) - 1
        order by s.link
    );
    insert into audit.retired_months select (v_line).*;

    -- Where the chain stands with regard to transactions it says again: the seal that said it may go.
    v_seal.month := audit.month_of(now());
    v_seal.version := 1;
    v_seal.change_ids := '{}';
    v_seal.change_count := 0;
    v_seal.changes_hash := audit.retirement_hash(v_line);
    v_seal.row_digests := '';
    v_seal.first_at := null;
    v_seal.last_at := null;
    v_seal.last_transaction := null;
    v_seal.backdated_ids := '{}';
    v_seal.retired_month := p_month;
    v_seal.sealed_at := now();
    v_seal.transaction_id := txid_current();
    v_seal.cluster := coalesce(v_seal.cluster, audit.cluster_id());
    v_seal.complete := coalesce(v_seal.complete, true);
    v_seal.sealed_through := coalesce(v_seal.sealed_through, '3:3:');
    v_seal.base_id := coalesce(v_seal.base_id, 0);
    v_seal.greatest_id := coalesce(v_seal.greatest_id, 0);
    perform audit.add_to_chain(v_seal);

    delete from audit.seals as s where s.month = p_month;
end;
$$;

comment on function audit.retire_seals(date, interval) is
    'Replaces the seals of a month by a line in audit.retired_months. Part of audit.drop_expired_partitions(), '
    'under its lock.';


-- What takes long comes first: writers wait for the last step alone, the drop, and for its lock no longer than a second.
create or replace function audit.drop_expired_partitions()
returns bigint
language plpgsql
volatile
security invoker
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set lock_timeout = '1s'
as $$
declare
    v_retention interval := (select s.retention from audit.settings as s);
    v_expired_before timestamptz := date_trunc('month', clock_timestamp() - v_retention);
    v_partitions text[];
    v_kept tstzmultirange;
    v_month date;
    v_name text;
begin
    perform pg_advisory_xact_lock(hashtextextended('holdfast audit seals', 0));

    select
        array_agg(c.relname::text order by c.relname) filter (where upper(r.times) <= v_expired_before),
        coalesce(range_agg(r.times) filter (where upper(r.times) > v_expired_before), '{}')
    into v_partitions, v_kept
    from pg_catalog.pg_inherits as i
    join pg_catalog.pg_class as c on c.oid = i.inhrelid
    cross join lateral (select audit.partition_range(i.inhrelid) as times) as r
    where i.inhparent = 'audit.database_changes'::regclass;

    for v_month in
        select m.month
        from (
            select s.month from audit.seals as s
            union
            select generate_series(lower(r.times), upper(r.times) - interval '1 day', interval '1 month')::date
            from unnest(v_partitions) as p (name)
            cross join lateral (select audit.partition_range(format('audit.%I', p.name)::regclass) as times) as r
        ) as m
        where m.month < v_expired_before
            -- A partition of several months goes as one, and stays as one.
            and not v_kept @> m.month::timestamptz
        order by m.month
    loop
        perform audit.retire_seals(v_month, v_retention);
    end loop;

    -- Rows for which no month was made cannot be dropped with one. The guard is down only for this transaction.
    if exists (select from audit.database_changes_default as d where d.occurred_at < v_expired_before) then
        alter table audit.database_changes_default disable trigger append_only;
        delete from audit.database_changes_default as d where d.occurred_at < v_expired_before;
        alter table audit.database_changes_default enable trigger append_only;
    end if;

    foreach v_name in array coalesce(v_partitions, '{}') loop
        execute format('drop table audit.%I', v_name);
    end loop;
    return coalesce(cardinality(v_partitions), 0);
exception
    when lock_not_available then
        raise warning 'The audit trail could not drop what is older than %: somebody uses it; the next run tries again',
            v_expired_before
            using hint = 'pg_stat_activity and pg_locks tell who reads audit.database_changes.';
        return 0;
end;
$$;

comment on function audit.drop_expired_partitions() is
    'Drops the months that ended before audit.settings.retention, with their seals, and notes each in audit.retired_months. '
    'Returns how many partitions it dropped; none where it would have to wait over a second for a lock.';

select cron.schedule('holdfast_audit_seal', '* * * * *', 'select audit.seal()');

select cron.schedule('holdfast_audit_retention', '47 * * * *', 'select audit.drop_expired_partitions()');
