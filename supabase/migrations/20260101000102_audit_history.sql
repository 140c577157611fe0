-- What: the history of one row.
-- Why: "how did this order get here" is asked of a row, also of one that has another key by now, or is gone.
-- Who: admins by their JWT and `postgres`, as for all reading of the trail.

-- A key as the trail writes it: each column's value goes through its type, so that capitals in a UUID do not matter.
create or replace function audit.key_text(p_table oid, p_key text)
returns text
language plpgsql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_columns text[] := audit.key_columns(p_table);
    v_key jsonb;
    v_values text[];
    v_row text;
    v_text text;
begin
    if cardinality(v_columns) < 2 then
        v_values := array[p_key];
    else
        begin
            v_key := p_key::jsonb;
        exception
            when invalid_text_representation then v_key := null;
        end;
        v_values := case
            when jsonb_typeof(v_key) = 'array' then array(select jsonb_array_elements_text(v_key))
            when jsonb_typeof(v_key) = 'object' and v_key ?& v_columns
                then array(select v_key ->> c.name from unnest(v_columns) with ordinality as c (name, position) order by c.position)
        end;
        if cardinality(v_values) is distinct from cardinality(v_columns) then
            raise exception 'Cannot tell the history of a row of %: its key has the columns %; received %',
                p_table::regclass, array_to_string(v_columns, ', '), left(p_key, 200)
                using errcode = '22023',
                    hint = 'Give a JSON object with these names, or a JSON array of the values in this order.';
        end if;
    end if;

    select string_agg(format('$1[%s]::%s as %I', k.position, format_type(a.atttypid, a.atttypmod), k.name), ', ')
    into v_row
    from unnest(v_columns) with ordinality as k (name, position)
    join pg_catalog.pg_attribute as a on a.attrelid = p_table and a.attname = k.name;

    if v_row is null then
        return p_key;
    end if;
    execute format('select %s from (select %s) as k', audit.key_code(p_table, 'k'), v_row) into v_text using v_values;
    return v_text;
end;
$$;

comment on function audit.key_text(oid, text) is
    'A primary key as database_changes.primary_key has it. Several columns: from a JSON object or array. As it is where '
    'the table has no key. Raises what the column''s type raises for a value that is none of its own.';


create or replace function audit.former_key(p_table oid, p_details jsonb)
returns text
language sql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select case count(*) filter (where r.old ->> k.name is distinct from r.new ->> k.name and r.old ? k.name)
        when 0 then null
        else audit.key_text(p_table, case count(*)
            when 1 then min(r.old ->> k.name)
            else jsonb_agg(coalesce(r.old ->> k.name, r.new ->> k.name) order by k.position)::text
        end)
    end
    from unnest(audit.key_columns(p_table)) with ordinality as k (name, position)
    cross join lateral (select p_details #> '{row,old}', p_details #> '{row,new}') as r (old, new)
$$;

comment on function audit.former_key(oid, jsonb) is
    'The key a row had before an UPDATE changed it; null where the UPDATE, by its details, left the key alone.';


create or replace function audit.row_exists(p_table oid, p_key text)
returns boolean
language plpgsql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_condition text;
    v_values text[];
    v_exists boolean;
begin
    -- Not by case: the planner would compute the cast of a key that is no JSON.
    if cardinality(audit.key_columns(p_table)) = 1 then
        v_values := array[p_key];
    else
        v_values := array(select jsonb_array_elements_text(p_key::jsonb));
    end if;
    select string_agg(format('t.%I = $1[%s]::%s', k.name, k.position, format_type(a.atttypid, a.atttypmod)), ' and ')
    into v_condition
    from unnest(audit.key_columns(p_table)) with ordinality as k (name, position)
    join pg_catalog.pg_attribute as a on a.attrelid = p_table and a.attname = k.name;

    execute format('select exists (select from %s as t where %s)', p_table::regclass, v_condition)
        into v_exists using v_values;
    return v_exists;
exception
    when insufficient_privilege then return null;
end;
$$;

comment on function audit.row_exists(oid, text) is
    'Whether a row with this key is there now; null for a table that the trail''s owner may not read.';


-- All that was recorded under the key; then, for each change of key that led to it, the life of that row under its
-- former keys, back to its INSERT; then its end.
create or replace function audit.history_ids(p_table text, p_key text)
returns bigint[]
language plpgsql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table oid := to_regclass(p_table);
    v_names text[] := array[p_table];
    v_key text := p_key;
    v_ids bigint[];
    v_move record;
    v_change record;
begin
    if v_table is not null then
        v_key := audit.key_text(v_table, p_key);
        v_names := array(
            select audit.identity_of(v_table)
            union
            select audit.identity_of(t.recorded_as) from audit.tables as t where t.table_oid = v_table
        );
    end if;

    v_ids := array(
        select c.id
        from audit.database_changes as c
        where c.primary_key = v_key
        and c.object_identity = any (v_names)
    );
    if v_ids = '{}' then
        perform audit.require_history(p_table, v_table);
        return v_ids;
    elsif v_table is null or audit.key_columns(v_table) = '{}' then
        return v_ids;
    end if;

    for v_move in
        select c.id, audit.former_key(v_table, c.details) as key
        from audit.database_changes as c
        where c.primary_key = v_key
        and c.object_identity = any (v_names)
        and c.details #> '{row,old}' ?| audit.key_columns(v_table)
        and audit.former_key(v_table, c.details) is not null
    loop
        loop
            for v_change in
                select c.id, c.operation, audit.former_key(v_table, c.details) as key
                from audit.database_changes as c
                where c.primary_key = v_move.key
                and c.object_identity = any (v_names)
                and c.id < v_move.id
                order by c.id + 0 desc
            loop
                exit when v_change.operation = 'DELETE';
                v_ids := v_ids || v_change.id;
                exit when v_change.operation = 'INSERT' or v_change.key is not null;
            end loop;
            exit when not found or v_change.key is null;
            v_move := v_change;
        end loop;
    end loop;

    return v_ids || audit.history_end(v_table, v_names, v_key, (
        select max(c.id)
        from audit.database_changes as c
        where c.id = any (v_ids)
        and c.operation <> 'EVENT'
    ));
end;
$$;

comment on function audit.history_ids(text, text) is
    'Ids of the changes of a row, in no order. Raises where the answer would be empty because the question makes no sense.';


-- An UPDATE of the key is recorded under the new one and a TRUNCATE under none. So a row that is gone without a DELETE
-- is looked for in all that came after its last change: seldom, and then slow where much came after.
create or replace function audit.history_end(p_table oid, p_names text[], p_key text, p_last_id bigint)
returns bigint[]
language sql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select array(
        select c.id
        from audit.database_changes as c
        where c.id > p_last_id
        and c.object_identity = any (p_names)
        and (
            c.operation = 'TRUNCATE'
            or (
                c.operation = 'UPDATE'
                and c.details #> '{row,old}' ?| audit.key_columns(p_table)
                and audit.former_key(p_table, c.details) = p_key
            )
        )
        order by c.id
        limit 1
    )
    where (
        select c.operation in ('INSERT', 'UPDATE')
        from audit.database_changes as c
        where c.id = p_last_id
    )
    and not audit.row_exists(p_table, p_key)
$$;

comment on function audit.history_end(oid, text[], text, bigint) is
    'The change that ended a row which is gone without a DELETE: a TRUNCATE, or an UPDATE that gave it another key. '
    'Null for a row that is there, or that was deleted.';


create or replace function audit.require_history(p_name text, p_table oid)
returns void
language plpgsql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    if p_table is null then
        raise exception 'Cannot tell the history of a row of %: there is no such table, and no change of one with this key',
            p_name
            using errcode = '42P01', hint = 'Write the schema too, and the name the table had then: public.orders.';
    elsif audit.key_columns(p_table) = '{}' then
        raise exception 'Cannot tell the history of a row of %: without a primary key its rows cannot be told apart', p_name
            using errcode = '22023',
                hint = 'For all changes of the table: select * from audit.find_changes(''{"table": "public.orders"}'')';
    elsif not exists (select from audit.tables as t where t.table_oid = p_table) then
        raise exception 'Cannot tell the history of a row of %: the table was never audited', p_name
            using errcode = '22023', hint = 'From now on: select audit.enable(''public.orders'')';
    end if;
end;
$$;

comment on function audit.require_history(text, oid) is
    'Raises where a table can have no history: an empty answer would read as "nothing happened".';


create or replace function audit.row_history(p_table text, p_key text)
returns setof audit.changes
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_ids bigint[];
begin
    perform audit.require_reader();
    v_ids := audit.history_ids(p_table, p_key);
    return query
    select c.*
    from audit.changes as c
    where c.id = any (v_ids)
    order by c.id;
    perform audit.note_reading('row_history', jsonb_build_object('table', p_table, 'key', left(p_key, 4000)));
end;
$$;

comment on function audit.row_history(text, text) is
    'All that happened to the row with this key, oldest first, also under its former keys, with the events that '
    'audit.record told of it under the table''s name. A table that was dropped or renamed goes by the name of then; its '
    'keys are the texts that the trail has. Several columns: a JSON object or array.';


create or replace function audit.row_history(p_table regclass, p_key text)
returns setof audit.changes
language sql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select c.*
    from audit.row_history(p_table::text, p_key) as c
$$;

comment on function audit.row_history(regclass, text) is 'As row_history(text, text).';


create or replace function audit.row_history(p_table regclass, p_key anyelement)
returns setof audit.changes
language sql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select c.*
    from audit.row_history(p_table::text, to_jsonb(p_key) #>> '{}') as c
$$;

comment on function audit.row_history(regclass, anyelement) is
    'As row_history(text, text), for a key of any type: a uuid, a number, jsonb for several columns.';


grant execute
    on function
        audit.row_history(text, text),
        audit.row_history(regclass, text),
        audit.row_history(regclass, anyelement)
    to authenticated;
