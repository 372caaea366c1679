// The editor is larger than all the rest, so it comes when the first text is to be edited.

import { lazy, Suspense } from 'preact/compat';
import type { DiffProps, EditorProps } from './codemirror';

const Loaded = lazy(() => import('./codemirror').then((module) => ({ default: module.CodeEditor })));
const LoadedDiff = lazy(() => import('./codemirror').then((module) => ({ default: module.CodeDiff })));

const waiting = <div class="editor loading-editor" role="status" aria-label="Loading the editor" />;

export const Editor = (props: EditorProps) => <Suspense fallback={waiting}><Loaded {...props} /></Suspense>;
export const Diff = (props: DiffProps) => <Suspense fallback={waiting}><LoadedDiff {...props} /></Suspense>;
