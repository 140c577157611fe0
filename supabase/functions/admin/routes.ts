/** The routes of `admin`. Each is for signed-in users whose token says that they are an admin. */
import { route } from '../_shared/http/api.ts'
import { auditQuery, changeList } from './schemas.ts'
import { findChanges, requireAdmin } from './trail.ts'

export const routes = [
  route({
    method: 'GET',
    path: '/audit',
    auth: 'user',
    summary: 'Who changed what, newest first',
    description:
      'All filters given must match. The cursor goes with the filters it was given for. A read is itself recorded, ' +
      'as the event `audit.read`.',
    query: auditQuery,
    response: changeList,
    paginated: true,
    limit: { name: 'admin', policy: '120/min', by: 'user' },
    errors: ['FORBIDDEN', 'UPSTREAM_TIMEOUT', 'SERVICE_UNAVAILABLE'],
    async handler(context) {
      requireAdmin(context.caller)
      const { changes, pagination } = await findChanges(context, context.query)
      // What stands here is for nobody else, and no proxy may keep it.
      return { data: { changes }, pagination, headers: { 'cache-control': 'no-store' } }
    },
  }),
]
