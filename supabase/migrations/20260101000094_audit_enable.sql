-- What: which tables are audited: audit.enable, audit.disable, and audit.refresh, which keeps the code current.
-- Why: a table that changed, or that is new, is recorded rightly from its next row on, with nobody thinking of it.
-- Who: the owner of the database; pg_cron refreshes each minute, and each change of the schema at once.

create or replace function audit.fingerprint(p_options audit.tables)
returns text
language sql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select md5(jsonb_build_array(
        1, -- of the generator: raised when the code it writes changes
        p_options.leave_out, p_options.mask, p_options.secrets, p_options.whole_row,
        audit.identity_of(p_options.recorded_as),
        audit.key_columns(p_options.table_oid),
        (select s.trusted_proxy_hops from audit.settings as s),
        (
            select jsonb_agg(jsonb_build_array(a.attnum, a.attname, a.atttypid, a.attcollation, a.attnotnull) order by a.attnum)
            from pg_catalog.pg_attribute as a
            where a.attrelid = p_options.table_oid and a.attnum > 0 and not a.attisdropped
        )
    )::text)
$$;

comment on function audit.fingerprint(audit.tables) is 'Of all that the trigger code of a table is generated from.';


create or replace function audit.generate(p_table regclass)
returns void
language plpgsql
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_options audit.tables;
    v_function text;
    v_columns jsonb;
begin
    select coalesce(jsonb_object_agg(a.attnum, a.attname), '{}') into v_columns
    from pg_catalog.pg_attribute as a
    where a.attrelid = p_table and a.attnum > 0 and not a.attisdropped;

    -- A column that was renamed keeps its number, and with it stays masked or left out.
    update audit.tables as t
    set leave_out = audit.renamed(t.leave_out, t.columns, v_columns),
        mask = audit.renamed(t.mask, t.columns, v_columns),
        secrets = array(
            select unnest(audit.renamed(t.secrets, t.columns, v_columns))
            union
            select c.value from jsonb_each_text(v_columns) as c where audit.sounds_secret(c.value)
        ),
        columns = v_columns,
        changed_at = clock_timestamp()
    where t.table_oid = p_table
    returning * into v_options;

    v_function := format('audit.record_%s', v_options.id);
    execute format(
        'create or replace function %s() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp %s as %L',
        v_function,
        -- The text of these types depends on the session, and with it the key of a row.
        case when exists (
            select
            from pg_catalog.pg_attribute as a
            join pg_catalog.pg_type as t on t.oid = a.atttypid
            where a.attrelid = p_table and a.attnum > 0 and not a.attisdropped
            and t.typtype <> 'e'
            and not (t.typnamespace = 'pg_catalog'::regnamespace and t.typname in (
                'bool', 'int2', 'int4', 'int8', 'numeric', 'uuid', 'text', 'varchar', 'bpchar', 'json', 'jsonb',
                'date', 'timestamp', 'timestamptz', 'inet'
            ))
        ) then 'set extra_float_digits = 1 set bytea_output = hex set intervalstyle = postgres' end,
        audit.trigger_code(v_options)
    );
    execute format(
        'create or replace trigger audit_insert after insert on %s referencing new table as new_rows '
        'for each statement execute function %s()', p_table, v_function
    );
    execute format(
        'create or replace trigger audit_update after update on %s referencing old table as old_rows new table as new_rows '
        'for each statement execute function %s()', p_table, v_function
    );
    execute format(
        'create or replace trigger audit_delete after delete on %s referencing old table as old_rows '
        'for each statement execute function %s()', p_table, v_function
    );
    execute format(
        'create or replace trigger audit_truncate after truncate on %s '
        'for each statement execute function %s()', p_table, v_function
    );
    update audit.tables as t set fingerprint = audit.fingerprint(t) where t.table_oid = p_table;
end;
$$;

comment on function audit.generate(regclass) is 'Writes the trigger function of a table, and the triggers that call it.';


create or replace function audit.renamed(p_names text[], p_before jsonb, p_now jsonb)
returns text[]
language sql
immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select case when p_names is not null then coalesce(array_agg(distinct current_name.name), '{}') end
    from unnest(p_names) as given (name)
    cross join lateral (
        select coalesce(
            (select n.value from jsonb_each_text(p_now) as n where n.value = given.name),
            (
                select n.value
                from jsonb_each_text(p_before) as b
                join jsonb_each_text(p_now) as n on n.key = b.key
                where b.value = given.name
            )
        )
    ) as current_name (name)
    where current_name.name is not null
$$;

comment on function audit.renamed(text[], jsonb, jsonb) is 'The names that columns have now; those of dropped ones are gone.';


create or replace function audit.enable(
    p_table regclass,
    p_leave_out text[] default null,
    p_mask text[] default null,
    p_whole_row boolean default null
)
returns void
language plpgsql
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_kind "char";
    v_schema text;
    v_unknown text;
    v_partition oid;
    v_root regclass := coalesce(pg_catalog.pg_partition_root(p_table), p_table);
begin
    select c.relkind, n.nspname into v_kind, v_schema
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where c.oid = p_table;

    if v_kind not in ('r', 'p') or v_schema in ('audit', 'pg_catalog', 'information_schema') then
        raise exception 'Cannot audit %: it is no table of the application', p_table
            using errcode = 'wrong_object_type',
                hint = 'Name a table or a partitioned table. Views are recorded by the tables below them.';
    end if;

    select string_agg(given.name, ', ') into v_unknown
    from unnest(p_leave_out || p_mask) as given (name)
    where not exists (
        select
        from pg_catalog.pg_attribute as a
        where a.attrelid = p_table and a.attname = given.name and a.attnum > 0 and not a.attisdropped
    );
    if v_unknown is not null then
        raise exception 'Cannot audit %: it has no column %', p_table, v_unknown
            using errcode = 'undefined_column';
    end if;
    if p_leave_out || p_mask && audit.key_columns(p_table) then
        raise exception 'Cannot audit %: its key (%) can be neither left out nor masked',
            p_table, array_to_string(audit.key_columns(p_table), ', ')
            using errcode = 'invalid_parameter_value';
    end if;

    insert into audit.tables as t (table_oid, recorded_as, leave_out, mask, secrets, whole_row)
    values (
        p_table, v_root, coalesce(p_leave_out, '{}'), p_mask,
        coalesce((select root.secrets from audit.tables as root where root.table_oid = v_root), '{}'),
        coalesce(p_whole_row, false)
    )
    on conflict (table_oid) do update
    set enabled = true,
        recorded_as = v_root,
        leave_out = coalesce(p_leave_out, t.leave_out),
        mask = coalesce(p_mask, t.mask),
        whole_row = coalesce(p_whole_row, t.whole_row);

    perform audit.generate(p_table);

    -- A statement fires the triggers of the table it names, so each partition has its own.
    for v_partition in
        select i.inhrelid
        from pg_catalog.pg_inherits as i
        join pg_catalog.pg_class as c on c.oid = i.inhrelid
        where i.inhparent = p_table and c.relispartition and c.relkind in ('r', 'p')
    loop
        perform audit.enable(v_partition, p_leave_out, p_mask, p_whole_row);
    end loop;
end;
$$;

comment on function audit.enable(regclass, text[], text[], boolean) is
    'Records every change of a table from now on, in the transaction of the change. Callable any number of times: options '
    'that are null stay as they are. p_leave_out: columns that never reach the trail. p_mask: columns of which only the '
    'change is told, instead of those whose names sound like a secret; ''{}'' masks none. p_whole_row: whether an UPDATE '
    'is recorded with all columns. Partitions are enabled with their table and recorded under its name. Raises '
    'wrong_object_type, undefined_column, invalid_parameter_value.';


create or replace function audit.disable(p_table regclass)
returns void
language plpgsql
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_id integer;
    v_partition regclass;
begin
    update audit.tables as t
    set enabled = false, changed_at = clock_timestamp()
    where t.table_oid = p_table
    returning t.id into v_id;

    if v_id is not null then
        execute format('drop trigger if exists audit_insert on %s', p_table);
        execute format('drop trigger if exists audit_update on %s', p_table);
        execute format('drop trigger if exists audit_delete on %s', p_table);
        execute format('drop trigger if exists audit_truncate on %s', p_table);
        execute format('drop function if exists audit.record_%s()', v_id);
    else
        -- Remembered, so that the next change of the schema does not take it for a new table.
        insert into audit.tables (table_oid, recorded_as, enabled)
        values (p_table, coalesce(pg_catalog.pg_partition_root(p_table), p_table), false);
    end if;

    for v_partition in
        select i.inhrelid
        from pg_catalog.pg_inherits as i
        join pg_catalog.pg_class as c on c.oid = i.inhrelid
        where i.inhparent = p_table and c.relispartition
    loop
        perform audit.disable(v_partition);
    end loop;
end;
$$;

comment on function audit.disable(regclass) is
    'Ends the recording of a table and of its partitions. What is in the trail stays, and so do the options.';


-- Tables whose code is stale, whose triggers are gone or off, new partitions and new tables of audited schemas.
create or replace function audit.stale_tables(p_only oid[] default null)
returns table (table_oid regclass, reason text)
language sql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select t.table_oid, 'its columns or options changed'
    from audit.tables as t
    join pg_catalog.pg_class as c on c.oid = t.table_oid
    where t.enabled
    and (p_only is null or t.table_oid = any (p_only))
    and (
        t.fingerprint <> audit.fingerprint(t)
        or t.recorded_as <> coalesce(pg_catalog.pg_partition_root(t.table_oid), t.table_oid)
    )
    union all
    select t.table_oid, 'its triggers are gone or off'
    from audit.tables as t
    join pg_catalog.pg_class as c on c.oid = t.table_oid
    where t.enabled
    and (p_only is null or t.table_oid = any (p_only))
    and t.fingerprint = audit.fingerprint(t)
    and (
        select count(*)
        from pg_catalog.pg_trigger as g
        where g.tgrelid = t.table_oid
        and g.tgname in ('audit_insert', 'audit_update', 'audit_delete', 'audit_truncate')
        and g.tgenabled <> 'D'
    ) < 4
    union all
    select c.oid, 'it is new'
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    left join pg_catalog.pg_inherits as i on i.inhrelid = c.oid and c.relispartition
    where c.relkind in ('r', 'p')
    and c.relpersistence <> 't'
    and (p_only is null or c.oid = any (p_only))
    and (
        n.nspname = any (select unnest(s.schemas) from audit.settings as s)
        or i.inhparent in (select t.table_oid from audit.tables as t where t.enabled)
    )
    and not exists (select from audit.tables as t where t.table_oid = c.oid)
    -- The tables of an extension are its own.
    and not exists (
        select from pg_catalog.pg_depend as d
        where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'
    )
$$;

comment on function audit.stale_tables(oid[]) is
    'Tables that audit.refresh() would see to, and why: of all, or of p_only.';


create or replace function audit.refresh(p_only oid[] default null)
returns integer
language plpgsql
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_gone integer;
    v_stale record;
    v_parent audit.tables;
    v_count integer := 0;
    -- What changes a partitioned table, or takes a partition from it, concerns the whole tree.
    v_only oid[] := case when p_only is not null then array(
        select named.id from unnest(p_only) as named (id)
        union
        select t.table_oid from audit.tables as t where t.recorded_as = any (p_only)
        union
        select tree.relid
        from unnest(p_only) as named (id)
        cross join pg_catalog.pg_partition_tree(coalesce(pg_catalog.pg_partition_root(named.id), named.id)) as tree
    ) end;
    v_lock_timeout text := current_setting('lock_timeout');
begin
    -- Less than deadlock_timeout: whoever writes waits no longer than this, and is never the one who is stopped.
    perform set_config('lock_timeout', '500ms', true);
    for v_gone in
        delete from audit.tables as t
        where not exists (select from pg_catalog.pg_class as c where c.oid = t.table_oid)
        returning t.id
    loop
        execute format('drop function if exists audit.record_%s()', v_gone);
    end loop;

    for v_stale in select s.table_oid, s.reason from audit.stale_tables(v_only) as s order by s.table_oid::oid loop
        begin
            if v_stale.reason = 'its triggers are gone or off' then
                perform audit.count_gap(
                    audit.identity_of(v_stale.table_oid), 'DDL', '55000',
                    'its audit triggers were dropped or disabled; they are back now'
                );
            end if;
            -- A partition has the options of its table.
            select t.* into v_parent
            from pg_catalog.pg_inherits as i
            join audit.tables as t on t.table_oid = i.inhparent
            join pg_catalog.pg_class as c on c.oid = i.inhrelid and c.relispartition
            where i.inhrelid = v_stale.table_oid;
            perform audit.enable(v_stale.table_oid, v_parent.leave_out, v_parent.mask, v_parent.whole_row);
            v_count := v_count + 1;
        exception
            when serialization_failure or deadlock_detected then raise;
            when others then
                perform audit.count_gap(audit.identity_of(v_stale.table_oid), 'DDL', sqlstate, sqlerrm);
        end;
    end loop;
    perform set_config('lock_timeout', v_lock_timeout, true);
    return v_count;
end;
$$;

comment on function audit.refresh(oid[]) is
    'Of all tables, or of p_only and the trees they are partitions of: generates the code of tables that changed, enables new partitions and new tables of audit.settings.schemas, puts back '
    'triggers that were dropped or disabled (and counts that as a gap). Returns how many tables it saw to.';
