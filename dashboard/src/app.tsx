// Which screen a path shows, and to whom.

import { useEffect } from 'preact/hooks';
import { Redirect, Route, Switch, useLocation, useSearch } from 'wouter-preact';
import { session } from './lib/api';
import { askWho, forget, useMe } from './lib/store';
import { Account } from './pages/account';
import { SignIn, SignUp } from './pages/auth';
import { FunctionPage } from './pages/function';
import { Functions } from './pages/functions';
import { Keys } from './pages/keys';
import { NewFunction } from './pages/new';
import { Usage } from './pages/usage';
import { Failure, PageHead } from './ui/parts';
import { Shell } from './ui/shell';

export function App() {
  const me = useMe();
  const [path] = useLocation();
  const search = useSearch();

  useEffect(() => {
    session.onEnd = forget;
    // Windows side by side are both visible all along. Who cannot be asked now is asked again later.
    const again = () => void askWho().catch(() => {});
    addEventListener('focus', again);
    return () => removeEventListener('focus', again);
  }, []);

  if (me.error && me.data === undefined) {
    return <main class="alone"><Failure error={me.error} retry={() => void me.refetch()} /></main>;
  }
  // Until it is known who is there, nothing is shown that may turn out wrong.
  if (me.data === undefined) return <main class="alone" aria-busy="true" aria-label="Loading" />;

  if (me.data === null) {
    const next = path === '/' || path === '/login' ? '' : `?next=${encodeURIComponent(search ? `${path}?${search}` : path)}`;
    return (
      <Switch>
        <Route path="/signup"><SignUp /></Route>
        <Route path="/login"><SignIn /></Route>
        <Route><Redirect to={`/login${next}`} replace /></Route>
      </Switch>
    );
  }
  return (
    <Shell key={me.data.id} user={me.data}>
      <Switch>
        <Route path="/login"><AfterLogin /></Route>
        <Route path="/signup"><AfterLogin /></Route>
        <Route path="/"><Functions /></Route>
        <Route path="/new"><NewFunction /></Route>
        <Route path="/functions/:id/:tab?">
          {({ id, tab }) => <FunctionPage key={id} id={id} tab={tab ?? 'overview'} />}
        </Route>
        <Route path="/usage"><Usage /></Route>
        <Route path="/keys"><Keys /></Route>
        <Route path="/account"><Account user={me.data} /></Route>
        <Route><PageHead title="There is no such page" sub="The address may be mistyped, or what it showed is gone." /></Route>
      </Switch>
    </Shell>
  );
}

/** Only paths of this origin: `//elsewhere` would leave it, and so would `/\\elsewhere`. */
function AfterLogin() {
  const next = new URLSearchParams(location.search).get('next') ?? '/';
  return <Redirect to={/^\/(?![/\\])/.test(next) ? next : '/'} replace />;
}
