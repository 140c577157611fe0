-- What: audit.verify() names the first link of the audit trail that is broken; audit.head() is the hash to keep elsewhere.
-- Why: a trail is worth what can be proved of it, at any time and by whoever answers for it.
-- Who: the owner of the database, and signed-in admins. Both only read.

create or replace function audit.head()
returns bytea
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform audit.require_reader();
    return (select s.hash from audit.seals as s order by s.link desc limit 1);
end;
$$;

comment on function audit.head() is
    'Hash of the newest seal; null before the first. Kept elsewhere, it proves all that was sealed until now: '
    'audit.verify(p_head => …) finds it again, unless the chain was made anew or cut off.';

-- anon and service_role have no right to it at all.
grant execute on function audit.head() to authenticated;


-- The chain itself, without the changes: each seal has the hash it claims, and follows the one before or a retired one.
create or replace function audit.first_broken_link(
    out link bigint,
    out month date,
    out number bigint,
    out problem text
)
returns record
language sql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    with retired as (
        select upper(r.links) - 1 as link, m.link_hashes[r.nth] as hash
        from audit.retired_months as m
        cross join unnest(m.links) with ordinality as r (links, nth)
    ),
    chain as (
        select
            s.link,
            s.month,
            s.number,
            s.previous_hash,
            s.hash,
            audit.seal_hash(s) as true_hash,
            coalesce(lag(s.link) over by_link, 0) as before_link,
            lag(s.hash) over by_link as before_hash,
            lag(s.month) over by_link as before_month,
            lag(s.number) over by_link as before_number
        from audit.seals as s
        window by_link as (order by s.link)
    )
    select
        c.link,
        c.month,
        c.number,
        case
            when c.hash <> c.true_hash
                then format('Seal %s of %s was altered', c.number, audit.month_name(c.month))
            when follows.hash is null
                then format(
                    'The seal before seal %s of %s is missing: link %s of the chain', c.number, audit.month_name(c.month),
                    c.link - 1
                )
            when c.before_link = c.link - 1 and c.before_link > 0
                then format(
                    'Seal %s of %s does not follow seal %s of %s: that one was altered, and its hash made anew',
                    c.number, audit.month_name(c.month), c.before_number, audit.month_name(c.before_month)
                )
            else format(
                'Seal %s of %s does not follow what was there before it', c.number, audit.month_name(c.month)
            )
        end
    from chain as c
    left join retired as r on r.link = c.link - 1
    cross join lateral (
        select case
            when c.link = 1 then decode(repeat('00', 32), 'hex')
            when c.before_link = c.link - 1 then c.before_hash
            else r.hash
        end as hash
    ) as follows
    where c.hash <> c.true_hash or c.previous_hash is distinct from follows.hash
    order by c.link
    limit 1
$$;

comment on function audit.first_broken_link(out bigint, out date, out bigint, out text) is
    'The first seal, in order of the chain, that was altered, or does not follow the one before. All nulls if there is none.';


-- Which change of a seal does not fit, by the digests the seal keeps.
create or replace function audit.first_broken_change(p_seal audit.seals, out change_id bigint, out problem text)
returns record
language plpgsql
stable
security invoker
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
    v_named numeric := (select coalesce(sum(upper(r.ids) - lower(r.ids)), 0) from unnest(p_seal.change_ids) as r (ids));
    v_month text := audit.month_name(p_seal.month);
    v_what text;
    v_moved_to date;
begin
    -- Before its ids are counted one by one: an altered seal may name more of them than there is time.
    if v_named = p_seal.change_count then
        with sealed as (
            select a.id, substr(p_seal.row_digests, 8 * (row_number() over (order by a.id))::integer - 7, 8) as digest
            from unnest(p_seal.change_ids) as r (ids)
            cross join generate_series(lower(r.ids), upper(r.ids) - 1) as a (id)
        ),
        found as (
            select d.id, count(*) as times, (array_agg(substr(d.digest, 1, 8)))[1] as digest
            from audit.change_digests(p_seal.month, p_seal.change_ids) as d
            group by d.id
        )
        select s.id, case when f.id is null then 'missing' when f.times > 1 then 'inserted' else 'altered' end
        into change_id, v_what
        from sealed as s
        left join found as f on f.id = s.id
        where f.id is null or f.times > 1 or f.digest <> s.digest
        order by s.id
        limit 1;
    end if;

    if v_what = 'missing' then
        select audit.month_of(c.occurred_at)
        into v_moved_to
        from audit.database_changes as c
        where c.id = change_id
        limit 1;
        if v_moved_to is not null then
            v_what := 'altered';
        elsif not audit.month_is_there(p_seal.month) then
            v_what := 'partition';
        end if;
    end if;
    problem := case v_what
        when 'inserted'
            then format('Change %s of %s is there twice: one was inserted behind the seals'' back', change_id, v_month)
        when 'missing' then format('Change %s of %s was deleted after it was sealed', change_id, v_month)
        when 'partition' then format('The partition of %s is missing, and retention did not drop it', v_month)
        when 'altered' then format('Change %s of %s was altered after it was sealed', change_id, v_month)
            || coalesce(': it now says ' || audit.month_name(v_moved_to), '')
        else format('Seal %s of %s was altered: it does not fit its changes', p_seal.number, v_month)
    end;
end;
$$;

comment on function audit.first_broken_change(audit.seals, out bigint, out text) is
    'The change with the least id that is not as a seal has it, and a sentence that says so; '
    'the seal itself where all are.';


create or replace function audit.month_is_there(p_month date)
returns boolean
language sql
stable
security invoker
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
    select not isfinite(p_month)
        or exists (
            select
            from pg_catalog.pg_inherits as i
            where i.inhparent = 'audit.database_changes'::regclass
                and audit.partition_range(i.inhrelid) @> p_month::timestamptz
        )
        or exists (
            select
            from audit.database_changes as c
            where c.occurred_at >= p_month::timestamptz and c.occurred_at < (p_month + interval '1 month')::timestamptz
        )
$$;

comment on function audit.month_is_there(date) is 'Whether a month has its partition, or its changes another.';


-- What verify() looks for once it has counted more changes than are sealed or may still be.
create or replace function audit.first_unknown_change(
    p_from timestamptz,
    p_to timestamptz,
    out change_id bigint,
    out problem text
)
returns record
language plpgsql
stable
security invoker
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
    v_waiting bigint[] := (select coalesce(array_agg(u.id), '{}') from audit.unsealed_changes() as u);
    v_after bigint := -9223372036854775808;
    v_greatest bigint;
    v_month date;
begin
    loop
        with next as (
            select c.id, c.occurred_at
            from audit.database_changes as c
            where c.id >= v_after and c.occurred_at >= p_from and c.occurred_at <= p_to
            order by c.id
            limit 10000
        ),
        near as materialized (
            select s.month, s.change_ids
            from audit.seals as s
            where upper(s.change_ids) > (select min(n.id) from next as n)
                and lower(s.change_ids) <= (select max(n.id) from next as n)
                and s.last_at >= p_from
                and s.first_at <= p_to
        )
        select
            max(n.id),
            min(n.id) filter (
                where n.id <> all (v_waiting)
                and not exists (
                    select from near as s where s.month = audit.month_of(n.occurred_at) and s.change_ids @> n.id
                )
            )
        into v_greatest, change_id
        from next as n;
        exit when change_id is not null or v_greatest is null or v_greatest = v_after;
        v_after := v_greatest;
    end loop;

    select audit.month_of(c.occurred_at)
    into v_month
    from audit.database_changes as c
    where c.id = change_id and c.occurred_at >= p_from and c.occurred_at <= p_to
    limit 1;
    problem := case
        when change_id is null then 'There are more changes than the seals know'
        when exists (select from audit.seals as s where s.change_ids @> change_id)
            then format('Change %s was altered after it was sealed: it now says %s', change_id, audit.month_name(v_month))
        else format('Change %s of %s was inserted behind the seals'' back', change_id, audit.month_name(v_month))
    end;
end;
$$;

comment on function audit.first_unknown_change(timestamptz, timestamptz, out bigint, out text) is
    'The change with the least id in that time which has no seal and will get none. Slow: it compares each with the seals.';


create or replace function audit.verify(
    p_from timestamptz default null,
    p_to timestamptz default null,
    p_head bytea default null,
    out intact boolean,
    out problem text,
    out seal_month date,
    out seal_number bigint,
    out change_id bigint,
    out checked_changes bigint,
    out checked_seals bigint,
    out unsealed_changes bigint,
    out unsealed_since timestamptz
)
returns record
language plpgsql
-- All its queries see one moment of the database, and none can write.
stable
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
    v_from timestamptz := coalesce(p_from, '-infinity');
    v_to timestamptz := coalesce(p_to, 'infinity');
    v_broken record;
    v_seal audit.seals;
    v_hashed record;
    v_sealed bigint := 0;
begin
    perform audit.require_reader();
    checked_changes := 0;
    checked_seals := 0;
    select count(*), min(u.occurred_at)
    into unsealed_changes, unsealed_since
    from audit.unsealed_changes() as u
    where u.occurred_at between v_from and v_to;

    select b.* into v_broken from audit.first_broken_link() as b;
    for v_seal in
        select s.*
        from audit.seals as s
        where s.last_at >= v_from and s.first_at <= v_to and (v_broken.link is null or s.link < v_broken.link)
        order by s.link
    loop
        select h.* into v_hashed from audit.hash_changes(v_seal.month, v_seal.change_ids) as h;
        if (v_hashed.change_count, v_hashed.changes_hash, v_hashed.row_digests)
            is distinct from (v_seal.change_count, v_seal.changes_hash, v_seal.row_digests)
        then
            select f.change_id, f.problem into change_id, problem from audit.first_broken_change(v_seal) as f;
            seal_month := v_seal.month;
            seal_number := v_seal.number;
            exit;
        end if;
        checked_seals := checked_seals + 1;
        checked_changes := checked_changes + v_seal.change_count;
        v_sealed := v_sealed + case
            when v_seal.first_at >= v_from and v_seal.last_at <= v_to then v_seal.change_count
            else (
                select count(*)
                from audit.change_digests(v_seal.month, v_seal.change_ids) as d
                where d.occurred_at between v_from and v_to
            )
        end;
    end loop;

    if problem is null and v_broken.link is not null then
        problem := v_broken.problem;
        seal_month := v_broken.month;
        seal_number := v_broken.number;
    end if;
    if problem is null
        and v_sealed + unsealed_changes
            <> (select count(*) from audit.database_changes as c where c.occurred_at between v_from and v_to)
    then
        select f.change_id, f.problem into change_id, problem from audit.first_unknown_change(v_from, v_to) as f;
    end if;
    if problem is null then
        problem := audit.retirement_problem();
    end if;
    if problem is null then
        select s.month, s.number, lower(s.backdated_ids),
            format(
                'Change %s of %s was inserted behind the seals'' back: its transaction began after a seal of a later time',
                lower(s.backdated_ids), audit.month_name(s.month)
            )
        into seal_month, seal_number, change_id, problem
        from audit.seals as s
        where s.last_at >= v_from and s.first_at <= v_to and not isempty(s.backdated_ids)
        order by s.link
        limit 1;
    end if;
    if problem is null
        and p_head is not null
        and not exists (select from audit.seals as s where s.hash = p_head)
        and not exists (select from audit.retired_months as r where p_head = any (r.link_hashes))
    then
        problem := 'No seal has the hash that was kept elsewhere: '
            || 'the chain was made anew or cut off, or that month is retired';
    end if;
    intact := problem is null;
end;
$$;

comment on function audit.verify(timestamptz, timestamptz, bytea) is
    'Whether the trail between two times is as it was sealed: one row, with the first broken link in problem, seal_month, '
    'seal_number and change_id. All seals are checked as a chain; changes are read again where a seal has one of that time. '
    'unsealed_changes are committed but not sealed, so nothing is proved of them. p_head is a hash from audit.head() or the '
    'server''s log.';

grant execute on function audit.verify(timestamptz, timestamptz, bytea) to authenticated;
